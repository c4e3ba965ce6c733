"""Serves the desk: a socket of its own, uvicorn with one process, and the refusal to be open to others without a log-in."""

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
# A page asks PostgreSQL several times. After each answer its thread waits for one that makes another page, at most this long.
SWITCH_SECONDS = 0.0005
# Between two looks whether a signal has asked it to end. The date of the answers is renewed with each.
END_SECONDS = 0.5


def check_exposed(desk: Desk) -> None:
    """Raises InvalidInput when others can reach the desk and nobody could be asked to log in."""
    if not desk.loopback and desk.oidc is None and not desk.users.any():
        raise InvalidInput(
            f"the desk would be open to everybody who reaches {desk.settings.desk_host}: add a user first, with "
            "`phantoms users add NAME --role operator`, set PHANTOMS_OIDC_ISSUER, or leave PHANTOMS_DESK_HOST at 127.0.0.1"
        )


def listening(host: str, port: int) -> socket.socket:
    """A listening socket. Raises InvalidInput when the port is taken or the address is not ours."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128)
    except OSError as error:
        raise InvalidInput(
            f"cannot listen on {host} port {port} ({os.strerror(error.errno or 0)}); choose another with --port"
        ) from error


def address(settings: Settings, port: int) -> str:
    """Where the desk is, for people."""
    host = f"[{settings.desk_host}]" if ":" in settings.desk_host else settings.desk_host
    return f"http://{host}:{port}/"


class _Server(uvicorn.Server):
    """Uvicorn's, which looks ten times a second whether it should end, all day long."""

    async def main_loop(self) -> None:
        """See the base class."""
        while not await self.on_tick(0):  # noqa: ASYNC110 - what ends it is a signal handler, which sets a plain attribute
            await asyncio.sleep(END_SECONDS)


def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve until a signal ends it."""
    sys.setswitchinterval(SWITCH_SECONDS)
    desk = Desk.of(settings)
    check_exposed(desk)
    app = create_app(desk)
    # What is here now stays. The collector need not walk through all of it again and again, while somebody waits for a page.
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        # `Forwarded` headers count only from a proxy on this machine, which is where compose's Caddy and nginx are told to be.
        proxy_headers=True,
        forwarded_allow_ips=os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1"),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ws="none",
    )
    _Server(config).run(sockets=[listener])
