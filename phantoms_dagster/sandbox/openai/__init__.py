"""The stand-in for OpenAI's API."""
