"""The sandbox's stand-in for OpenAI's API."""
