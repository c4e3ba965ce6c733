"""The kind of server at a base URL: OpenAI, a private server, or another company's compatible server.

They differ in three ways. OpenAI limits answers by `max_completion_tokens` and refuses `max_tokens` for reasoning models, while
Ollama and LM Studio read only `max_tokens` and silently ignore the other name, which would leave answers unlimited. OpenAI stores
completions and finds them by metadata; no compatible server does. A server on this machine or a private network bills nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from phantoms_dagster.registry.addresses import is_private

_OPENAI = ("openai.com", "openai.azure.com")


@dataclass(frozen=True, slots=True)
class Server:
    """`openai`: the server follows OpenAI's rules. `free`: it bills nothing. `name`: what messages call it."""

    openai: bool
    free: bool
    name: str

    @property
    def limit_name(self) -> str:
        """The parameter that limits the answer's length."""
        return "max_completion_tokens" if self.openai else "max_tokens"


def server_at(base_url: str, *, sandbox: bool = False) -> Server:
    """The kind of the server at that URL. The sandbox follows OpenAI's rules, wherever it is."""
    host = (urlsplit(base_url).hostname or "").rstrip(".").casefold()
    if sandbox or any(host == name or host.endswith(f".{name}") for name in _OPENAI):
        return Server(openai=True, free=False, name="OpenAI")
    return Server(openai=False, free=is_private(host), name=f"the model server at {host or 'an unknown host'}")
