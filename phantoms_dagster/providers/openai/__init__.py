"""Scripts by a chat-completions API: OpenAI, or any compatible server."""
