"""Clients of external APIs other than platforms: one package per service, each implementing a port of `domain.ports`."""
