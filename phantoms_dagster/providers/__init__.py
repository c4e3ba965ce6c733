"""Other people's APIs, one file per integration, each implementing a port of `domain.ports`."""
