"""What kind of server a base URL leads to: OpenAI itself, a server of one's own, or somebody else's that speaks the same.

The kinds differ in three ways. OpenAI bounds an answer by `max_completion_tokens` and refuses `max_tokens` for reasoning models;
Ollama and LM Studio read `max_tokens` alone and ignore the other name without a word, so an answer would have no bound. OpenAI
keeps completions that can be looked up by their metadata; no compatible server does. A server on this machine or network bills
nothing.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

_OPENAI = ("openai.com", "openai.azure.com")
_PRIVATE_SUFFIXES = (".local", ".internal", ".lan", ".home.arpa", ".localhost")


@dataclass(frozen=True, slots=True)
class Server:
    """`openai`: it follows OpenAI's own rules. `free`: nothing that it does is billed. `name` is for messages."""

    openai: bool
    free: bool
    name: str

    @property
    def limit_name(self) -> str:
        """The parameter that bounds the answer's length."""
        return "max_completion_tokens" if self.openai else "max_tokens"


def server_at(base_url: str, *, sandbox: bool = False) -> Server:
    """The kind of the server at that URL. The sandbox follows OpenAI's rules, wherever it is."""
    host = (urlsplit(base_url).hostname or "").rstrip(".").casefold()
    if sandbox or any(host == name or host.endswith(f".{name}") for name in _OPENAI):
        return Server(openai=True, free=False, name="OpenAI")
    return Server(openai=False, free=_is_private(host), name=f"the model server at {host or 'an unknown host'}")


def _is_private(host: str) -> bool:
    """Whether the host is this machine or one of the own network. A name without a dot is one of a container or of the network."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(_PRIVATE_SUFFIXES)
    return address.is_loopback or address.is_private or address.is_link_local
