"""The stand-in for Shotstack's API. It renders real videos."""
