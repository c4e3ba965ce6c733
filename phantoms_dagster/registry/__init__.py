"""The registry of platforms: their rules, built in or brought by other packages. It imports no other room."""
