"""The stand-in for the gateway Upload-Post."""
