"""Serves the desk with one uvicorn process. Refuses to start when other machines can reach it and nobody has to log in."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys

import uvicorn

from phantoms_dagster.desk.app import create_app
from phantoms_dagster.desk.context import Desk
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.settings import Settings

KEEP_ALIVE_SECONDS = 20
GRACE_SECONDS = 5
# A page makes several queries. After each answer its thread waits for the interpreter lock, at most this long.
SWITCH_SECONDS = 0.0005
# Time between two checks for a shutdown signal. Each check also refreshes the `Date` header of responses.
END_SECONDS = 0.5


def check_exposed(desk: Desk) -> None:
    """Raise InvalidInput when other machines can reach the desk and it has neither users nor an OpenID Connect provider."""
    if not desk.loopback and desk.oidc is None and not desk.users.any():
        raise InvalidInput(
            f"the desk would be open to everyone who can reach {desk.settings.desk.host}: add a user first with "
            "`phantoms users add NAME --role operator`, set PHANTOMS_OIDC_ISSUER, or leave PHANTOMS_DESK_HOST at 127.0.0.1"
        )


def listening(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises InvalidInput when the port is in use or the address is not local."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128)
    except OSError as error:
        raise InvalidInput(
            f"cannot listen on {host} port {port} ({os.strerror(error.errno or 0)}); choose another with --port"
        ) from error


def address(settings: Settings, port: int) -> str:
    """Return the desk's URL, for display."""
    host = f"[{settings.desk.host}]" if ":" in settings.desk.host else settings.desk.host
    return f"http://{host}:{port}/"


class _Server(uvicorn.Server):
    """Uvicorn's server, with fewer idle wake-ups: it checks for shutdown twice a second instead of ten times."""

    async def main_loop(self) -> None:
        """See the base class."""
        while not await self.on_tick(0):  # noqa: ASYNC110 - a signal handler sets a plain attribute; there is no event to await
            await asyncio.sleep(END_SECONDS)


def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve until a signal stops the process."""
    sys.setswitchinterval(SWITCH_SECONDS)
    desk = Desk.of(settings)
    check_exposed(desk)
    app = create_app(desk)
    # Everything loaded so far stays for good. Freezing it keeps garbage collections short while people wait for pages.
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        # Forwarded headers are trusted only from a proxy on this machine, where docs/desk.md puts Caddy or nginx.
        proxy_headers=True,
        forwarded_allow_ips=os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1"),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ws="none",
    )
    _Server(config).run(sockets=[listener])
