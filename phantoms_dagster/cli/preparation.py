"""Prepares what must exist before anything runs: the schema, the channels and Dagster's tables. For `up` and `init`."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from phantoms_dagster.cli.console import BAD_INPUT
from phantoms_dagster.domain import channels as channels_file
from phantoms_dagster.domain.errors import InvalidInput, MediaAway, PhantomsError
from phantoms_dagster.embedded.processes import ProcessSpec
from phantoms_dagster.embedded.tasks import Task, TaskTooSlow
from phantoms_dagster.settings import Settings

# `phantoms up` runs this in a child process, so that the long-running process does not import it.
if TYPE_CHECKING:
    from phantoms_dagster.wiring import Services

INITIALISE = "phantoms_dagster.execution.initialise"
PREPARE_SECONDS = 180.0
MARK = "prepared: "
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*: ")


class PreparationFailed(PhantomsError):
    """The tables could not be prepared."""


@dataclass(frozen=True)
class Prepared:
    """The result. `needed` lists the integrations that the sandbox replaces, `warning` is about the model, `said` is log output."""

    needed: tuple[str, ...]
    warning: str | None
    said: tuple[str, ...]


def make_ready(services: Services, environment: Mapping[str, str], *, say: Callable[[str], None]) -> None:
    """Prepare the servers and the data directory. Doing it again is harmless. `environment` is that of our processes.

    Closes the connections of `services`. Raises PhantomsError and SQLAlchemyError.
    """
    began = time.monotonic()
    command = (sys.executable, "-P", "-m", INITIALISE)
    with Task(ProcessSpec(name="initialise", argv=command, env=environment)) as dagster:  # in parallel: other tables
        make_tables(services, say=say)
        _await(dagster)
    say(f"tables: ready after {time.monotonic() - began:.1f} s")


def make_ready_apart(spec: Callable[[str, tuple[str, ...]], ProcessSpec], *, say: Callable[[str], None]) -> Prepared:
    """Do `make_ready` in child processes, so that this process does not keep the memory. `spec` turns a command into a process."""
    began = time.monotonic()
    python = (sys.executable, "-m")
    with Task(spec("initialise", (*python, INITIALISE))) as dagster, Task(spec("prepare", (*python, __name__))) as ours:
        prepared = _told(ours)
        _await(dagster)
    for line in prepared.said:
        say(line)
    say(f"tables: ready after {time.monotonic() - began:.1f} s")
    return prepared


def make_tables(services: Services, *, say: Callable[[str], None]) -> None:
    """Prepare everything except Dagster's tables. Raises PhantomsError and SQLAlchemyError."""
    from phantoms_dagster.resilience.redis.refusals import refuse_cluster_at  # noqa: PLC0415 - see the module
    from phantoms_dagster.store.engine import engine  # noqa: PLC0415
    from phantoms_dagster.store.migrate import upgrade  # noqa: PLC0415

    # A malformed URL fails here, where the message does not repeat it.
    engine(services.settings.dagster_url() or services.database_url).dispose()
    if services.settings.redis.url and (trouble := refuse_cluster_at(services.settings.redis.url.get_secret_value())):
        say(f"redis: {trouble}; nothing runs until it does")
    upgrade(services.database_url)
    try:
        _welcome(services, say)
    finally:
        services.close()


def _welcome(services: Services, say: Callable[[str], None]) -> None:
    """Give a new data directory a channels.yaml to edit, an inbox folder and a marked media folder."""
    from phantoms_dagster.store.kept_files import files_were_stored  # noqa: PLC0415 - see the module
    from phantoms_dagster.wiring.media_gate import media_disk  # noqa: PLC0415

    path = services.settings.channels_path
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(channels_file.default_text(), encoding="utf-8")
    services.settings.inbox_path.mkdir(parents=True, exist_ok=True)
    try:
        media_disk(services.settings).identify(known=files_were_stored(services.engine))
    except MediaAway as away:
        say(f"media: {away}. Videos wait for it")  # scripts and reviews work without it
    services.catalogue().put_channels(services.channels().values())


def _await(dagster: Task) -> None:
    """Wait until Dagster's tables are ready. Raises PreparationFailed."""
    code, said = _result(dagster)
    if code != 0:
        raise PreparationFailed("Dagster's instance could not be prepared:\n" + _reasons(said))


def _result(task: Task) -> tuple[int, str]:
    try:
        return task.result(PREPARE_SECONDS)
    except TaskTooSlow:
        raise PreparationFailed(f"the tables were not prepared within {PREPARE_SECONDS:.0f} s") from None


def _told(ours: Task) -> Prepared:
    """Return what `main` below printed, or raise the error that it reported."""
    code, said = _result(ours)
    told = next((json.loads(line.removeprefix(MARK)) for line in said.splitlines() if line.startswith(MARK)), None)
    if told is None:
        raise PreparationFailed(f"the tables could not be prepared (exit code {code}):\n" + _reasons(said))
    if "problem" in told:
        raise (InvalidInput if told["code"] == BAD_INPUT else PreparationFailed)(told["problem"])
    return Prepared(tuple(told["needed"]), told["warning"], tuple(told["said"]))


def main() -> None:
    """`python -m phantoms_dagster.cli.preparation`: prepare our tables and print the result for `make_ready_apart`."""
    from phantoms_dagster.cli.problems import problem  # noqa: PLC0415 - see the module
    from phantoms_dagster.wiring import Services  # noqa: PLC0415
    from phantoms_dagster.wiring.models import model_warning  # noqa: PLC0415

    said: list[str] = []
    told: dict[str, object]
    try:
        settings = Settings()
        services = Services(settings)
        make_tables(services, say=said.append)
        warning = model_warning(settings)
        told = {"needed": services.endpoints.sandbox_needed, "warning": warning, "said": said}
    except Exception as error:
        found = problem(error)
        if found is None:
            raise
        message, code = found
        told = {"problem": message, "code": code}
    sys.stdout.write(f"{MARK}{json.dumps(told)}\n")


def _reasons(output: str) -> str:
    """Return the messages of the exceptions in a traceback, root cause first; without any, the end of the output."""
    said = [line for line in output.splitlines() if _EXCEPTION.match(line)]
    return "\n".join(dict.fromkeys(said)) or "\n".join(output.splitlines()[-12:])


if __name__ == "__main__":
    main()
