"""`python -m phantoms_dagster.execution.webserver -w workspace.yaml`: Dagster's web server, once the code server answers.

Its arguments are those of `dagster-webserver`.
"""

from __future__ import annotations

import asyncio
import sys

import uvicorn
from dagster_webserver.cli import main as serve

from phantoms_dagster.execution.code_server import await_code_server
from phantoms_dagster.private import dagster as private

# Between two questions which code server answers, each of which opens a connection: how late other definitions are shown.
WATCH_SECONDS = 5.0
# Between two looks of an idle server whether it shall end. Its own ten a second are most of what it does when nobody looks at it.
TICK_SECONDS = 0.5


async def main_loop(server: uvicorn.Server) -> None:
    """`uvicorn.Server.main_loop`, more calmly."""
    while not await server.on_tick(0):  # noqa: ASYNC110 - uvicorn's handler of signals sets a flag and no event
        await asyncio.sleep(TICK_SECONDS)


def main() -> None:
    """Wait for the code server, then be `dagster-webserver`."""
    private.check()
    if private.usable("webserver"):
        private.server_watcher.WATCH_INTERVAL = WATCH_SECONDS  # type: ignore[assignment]  # it is only ever waited for
        uvicorn.Server.main_loop = main_loop  # type: ignore[method-assign, assignment]
    await_code_server(sys.argv[1:])
    serve()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
