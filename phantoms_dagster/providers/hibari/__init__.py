"""The neural voice on this machine."""
