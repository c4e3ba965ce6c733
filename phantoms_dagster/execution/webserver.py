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

# How often to check whether the code server was replaced, so how late new definitions appear. Each check opens a connection.
WATCH_SECONDS = 5.0
# How often to check for shutdown. Uvicorn's ten checks a second are most of the work of an idle server.
TICK_SECONDS = 0.5


async def main_loop(server: uvicorn.Server) -> None:
    """Do the same as `uvicorn.Server.main_loop`, but wake up less often."""
    while not await server.on_tick(0):  # noqa: ASYNC110 - uvicorn's signal handler sets a flag; there is no event to await
        await asyncio.sleep(TICK_SECONDS)


def main() -> None:
    """Wait for the code server, then run `dagster-webserver`."""
    private.check()
    if private.usable("webserver"):
        private.server_watcher.WATCH_INTERVAL = WATCH_SECONDS  # type: ignore[assignment]  # Dagster only passes it to `wait`
        uvicorn.Server.main_loop = main_loop  # type: ignore[method-assign, assignment]
    await_code_server(sys.argv[1:])
    serve()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
