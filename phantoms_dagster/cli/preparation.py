"""What is made ready once, before anything of ours runs: the schema, the channels, Dagster's tables. For `up` and `init` alike."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping

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
    say("database: applying migrations")
    upgrade(workshop.database_url)
    try:
        _welcome(workshop, say)
    finally:
        workshop.close()
    say("dagster: preparing the instance")
    _initialise(environment)


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


def _initialise(environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "phantoms_dagster.execution.initialise"]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False, timeout=INITIALISE_SECONDS)
    if done.returncode != 0:
        raise PreparationFailed("Dagster's instance could not be prepared:\n" + _reasons(done.stderr))


def _reasons(output: str) -> str:
    """What the exceptions of a traceback say, the first cause first; the end of the output when there are none."""
    said = [line for line in output.splitlines() if _EXCEPTION.match(line)]
    return "\n".join(dict.fromkeys(said)) or "\n".join(output.splitlines()[-12:])
