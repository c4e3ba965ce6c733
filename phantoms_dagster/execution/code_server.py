"""Waits for the code server. Dagster's daemon and web server load from it once at their start, and again only a minute later."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

LONGEST_SECONDS = 60.0
PAUSE_SECONDS = 0.1


def await_code_server(arguments: Sequence[str], *, seconds: float = LONGEST_SECONDS) -> bool:
    """Wait until every gRPC server in the workspace file (`-w FILE`) answers. Return whether all do within `seconds`.

    `phantoms up` starts the caller in parallel with the code server. Without `-w` there is nothing to wait for.
    """
    places = [(str(s.get("host", "localhost")), int(s["port"])) for s in _servers(arguments) if "port" in s]
    deadline = time.monotonic() + seconds
    while not all(_answers(*place) for place in places):
        if time.monotonic() >= deadline:
            return False
        time.sleep(PAUSE_SECONDS)
    return True


def _servers(arguments: Sequence[str]) -> list[dict[str, Any]]:
    files = [arguments[at + 1] for at, word in enumerate(arguments[:-1]) if word in ("-w", "--workspace")]
    found = [yaml.safe_load(Path(file).read_text(encoding="utf-8")) for file in files]
    return [entry["grpc_server"] for content in found for entry in content.get("load_from", []) if "grpc_server" in entry]


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True
