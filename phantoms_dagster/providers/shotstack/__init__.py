"""Renders by Shotstack."""
