"""Scripts from a chat completions API: OpenAI's or that of a compatible server."""
