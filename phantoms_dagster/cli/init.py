"""`phantoms init`: prepares the servers and the data directory, then exits. For deployments without `phantoms up`."""

from __future__ import annotations

import os
import re
from typing import Annotated

import typer
import yaml
from rich.markup import escape

from phantoms_dagster.cli.console import err, out, plain_errors
from phantoms_dagster.cli.preparation import make_ready
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.execution.home import prepare
from phantoms_dagster.execution.slots import redis_url, slots_of
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring import Services

_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):(?P<port>\d{1,5})")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Run")(init)


def init(
    code_server: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="The address of Dagster's code server; writes a workspace.yaml", show_default=False),
    ] = None,
    machines: Annotated[int, typer.Option(min=1, help="The number of machines or containers that will run `phantoms worker`")] = 1,
) -> None:
    """Prepare the servers and the data directory once, before anything else starts. `phantoms up` includes this.

    It applies migrations, writes channels.yaml if there is none, writes DAGSTER_HOME (dagster/ in the data directory) from the
    current settings, and creates Dagster's tables. It needs PHANTOMS_DATABASE_URL and PHANTOMS_REDIS_URL. Running it again is safe.

    Dagster runs as many runs of a stage at once as there are workers: PHANTOMS_WORKER_SLOTS times --machines.
    """
    with plain_errors():
        settings = Settings()
        server = None if code_server is None else _grpc_server(code_server)
        redis_url(settings)
        if settings.database.url is None:
            raise InvalidInput("there is no database to prepare: set PHANTOMS_DATABASE_URL, or use `phantoms up` instead")
        home = settings.paths.home.expanduser().absolute()
        folder = prepare(home, _with_all_workers(settings, machines))
        if server is not None:
            workspace = {"load_from": [{"grpc_server": server}]}
            (folder / "workspace.yaml").write_text(yaml.safe_dump(workspace), encoding="utf-8")
        environment = {**os.environ, "PHANTOMS_HOME": str(home), "DAGSTER_HOME": str(folder)}
        make_ready(Services(settings), environment, say=lambda line: err.print(f"[dim]{escape(line)}[/]"))
        out.print(f"ready; DAGSTER_HOME is {escape(str(folder))}", soft_wrap=True)


def _grpc_server(address: str) -> dict[str, str | int]:
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found["port"]) < 65_536:
        raise InvalidInput(f"--code-server {address}: write it as HOST:PORT, such as code-server:4000")
    return {"host": found["host"].strip("[]"), "port": int(found["port"]), "location_name": "phantoms"}


def _with_all_workers(settings: Settings, machines: int) -> Settings:
    """Return the settings with the worker slots of all machines together."""
    slots = {queue: count * machines for queue, count in slots_of(settings).items()}
    return settings.changed({"workers": {"slots": settings.workers.slots | slots}})
