"""What is made ready once, before anything of ours runs: the schema, the channels, Dagster's tables. For `up` and `init` alike."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from phantoms_dagster.domain import channels as channels_file
from phantoms_dagster.domain.errors import MediaAway, PhantomsError
from phantoms_dagster.resilience.redis_refusals import refuse_cluster_at
from phantoms_dagster.store.engine import engine
from phantoms_dagster.store.kept_files import files_were_stored
from phantoms_dagster.store.migrate import upgrade
from phantoms_dagster.wiring import Workshop
from phantoms_dagster.wiring.media_gate import media_disk

INITIALISE_SECONDS = 180.0
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*: ")


class PreparationFailed(PhantomsError):
    """Dagster's instance could not be made ready."""


def make_ready(workshop: Workshop, environment: Mapping[str, str], *, say: Callable[[str], None]) -> None:
    """Make the servers and the data directory ready; harmless when they are. `environment`: that of our processes.

    Raises PhantomsError and SQLAlchemyError. The workshop's connections are given back.
    """
    # One that cannot be read is refused here, where nothing of it is repeated.
    engine(workshop.settings.dagster_url() or workshop.database_url).dispose()
    if workshop.settings.redis_url and (trouble := refuse_cluster_at(workshop.settings.redis_url.get_secret_value())):
        say(f"redis: {trouble}; nothing is carried out before it does")
    began = time.monotonic()
    with _initialising(environment):  # beside ours: other tables, another process
        upgrade(workshop.database_url)
        try:
            _welcome(workshop, say)
        finally:
            workshop.close()
    say(f"tables: ready after {time.monotonic() - began:.1f} s")


def _welcome(workshop: Workshop, say: Callable[[str], None]) -> None:
    """A fresh data directory gets a channels.yaml to edit, an inbox to drop files into and a marked media folder."""
    path = workshop.settings.path("channels")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(channels_file.default_text(), encoding="utf-8")
    workshop.settings.path("inbox").mkdir(parents=True, exist_ok=True)
    try:
        media_disk(workshop.settings).identify(known=files_were_stored(workshop.engine))
    except MediaAway as away:
        say(f"media: {away}. Videos wait for it")  # scripts and reviews go on without it
    workshop.catalogue().put_channels(workshop.channels().values())


@contextmanager
def _initialising(environment: Mapping[str, str]) -> Iterator[None]:
    """Dagster's tables, in a process that has ended when this block has. Raises PreparationFailed at its end."""
    command = [sys.executable, "-P", "-m", "phantoms_dagster.execution.initialise"]
    with subprocess.Popen(command, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield
            said, _ = process.communicate(timeout=INITIALISE_SECONDS)
        except subprocess.TimeoutExpired:
            raise PreparationFailed(f"Dagster's instance was not prepared within {INITIALISE_SECONDS:.0f} s") from None
        finally:
            process.kill()
    if process.returncode != 0:
        raise PreparationFailed("Dagster's instance could not be prepared:\n" + _reasons(said))


def _reasons(output: str) -> str:
    """What the exceptions of a traceback say, the first cause first; the end of the output when there are none."""
    said = [line for line in output.splitlines() if _EXCEPTION.match(line)]
    return "\n".join(dict.fromkeys(said)) or "\n".join(output.splitlines()[-12:])
