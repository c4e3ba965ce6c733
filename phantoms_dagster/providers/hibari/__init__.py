"""The neural voice of this machine."""
