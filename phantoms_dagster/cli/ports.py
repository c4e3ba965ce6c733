"""The ports of a data directory's services. They are remembered, so that URLs and links survive a restart."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from phantoms_dagster.embedded.servers import free_port, is_free

FILE = "ports.json"
REMEMBERED = 4  # ports of a service
CALLED = {"webserver": "Dagster UI"}

# The ports that this process has chosen, with their services. It holds a file lock for each until it exits, which warns others.
_chosen: dict[int, str] = {}


class Ports:
    """The ports of one data directory, stored in `<home>/ports.json`.

    `warn` is called when a service cannot have its previous port, `say` when it cannot have the usual one on its first start.

    A service keeps its own port first, then the ports that it used while another program held that one. So a program that keeps
    the port does not move the service to yet another one at each start.
    """

    def __init__(self, home: Path, *, say: Callable[[str], None], warn: Callable[[str], None]) -> None:
        self._path = home / FILE
        self._say = say
        self._warn = warn
        self._known = _read(self._path)

    def take(self, service: str, *, wish: int | None = None, usual: int = 0, host: str = "127.0.0.1") -> int:
        """Return the port for a service: `wish` if given, else its previous port, else the usual one.

        When that port is in use, return another one and warn. For `wish` and `usual`, 0 means any free port.
        """
        known = self._known.get(service, [])
        if wish:
            known = [wish, *(port for port in known if port != wish)]
        elif not known and wish is None and usual:
            known = [usual]
        port = next((port for port in known if is_free(port, host) and _reserved(port, service)), 0) or free_port(0, host)
        if known and port != known[0]:
            moved = f"{CALLED.get(service, service)}: port {known[0]} is in use, so it is on {port}"
            if known[0] in self._known.get(service, []):
                self._warn(f"{moved}; links to {known[0]} will not work")
            else:
                self._say(moved)
                if not wish:
                    known = []  # it never had the usual port, so it keeps this one even when the usual one is free again
        known = [*known, *([] if port in known else [port])]
        self._remember(service, [*known[: REMEMBERED - 1], known[-1]] if len(known) > REMEMBERED else known)
        return port

    def _remember(self, service: str, ports: list[int]) -> None:
        if self._known.get(service) == ports:
            return
        self._known[service] = ports
        fresh = self._path.with_suffix(".part")
        fresh.write_text(json.dumps(self._known, indent=2) + "\n", encoding="utf-8")
        fresh.replace(self._path)


def _read(path: Path) -> dict[str, list[int]]:
    """Return the contents of the file; empty when it is missing or damaged, so ports are chosen again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(service): [port for port in ports if 0 < int(port) < 65_536] for service, ports in found.items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}


def _reserved(port: int, service: str) -> bool:
    """Reserve the port for the service. Return False when another process has reserved it.

    The service may start to listen half a minute later. Until then another `phantoms up` would see the port as free.
    """
    if port in _chosen:
        return _chosen[port] == service
    folder = Path(tempfile.gettempdir()) / f"phantoms-ports-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        file = os.open(folder / str(port), os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    except OSError:
        return True  # no lock is possible here; the port is probably free
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return False
    _chosen[port] = service
    return True
