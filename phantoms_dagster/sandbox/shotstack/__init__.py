"""The sandbox's stand-in for Shotstack's API. It renders real films."""
