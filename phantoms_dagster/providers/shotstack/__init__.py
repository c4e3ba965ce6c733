"""Rendering at Shotstack."""
