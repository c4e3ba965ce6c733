"""Captures the standard output and error of steps in files for the UI, and copies our own log lines to the worker's log.

Dagster's own manager starts four processes for each run to copy the files to the worker's log, two of them Python interpreters.
That takes more CPU time than the rest of a small run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from phantoms_dagster.execution.without_stores import temporary_folder
from phantoms_dagster.private import dagster as private
from phantoms_dagster.private.dagster import LocalComputeLogManager
from phantoms_dagster.wiring import logs

if TYPE_CHECKING:
    from phantoms_dagster.private.dagster import CapturedLogContext, ConfigurableClassData


class FileComputeLogManager(LocalComputeLogManager):
    """The `compute_logs:` entry of dagster.yaml. It has no config; the files are in `$DAGSTER_HOME/storage`, like Dagster's own."""

    @classmethod
    def config_type(cls) -> Any:
        """See the class."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> FileComputeLogManager:
        """See the base class."""
        del config_value
        home = os.environ.get("DAGSTER_HOME") or temporary_folder()
        return cls(base_dir=str(Path(home) / "storage"), inst_data=inst_data)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Generator[CapturedLogContext, None, None]:
        """Redirect the output of this process and its children to the files of `log_key`."""
        if not private.usable("parts"):
            with super().capture_logs(log_key) as captured_by_dagster:
                yield captured_by_dagster
            return
        with ExitStack() as captured:
            captured.enter_context(logs.also_to_the_console())
            for stream, extension in ((sys.stdout, "out"), (sys.stderr, "err")):
                captured.enter_context(_written_to(Path(self.get_captured_local_path(log_key, extension)), stream))
            yield private.CapturedLogContext(log_key)
        # This file tells Dagster that the logs are complete.
        complete = Path(self.complete_artifact_path(log_key))  # type: ignore[no-untyped-call]
        complete.parent.mkdir(parents=True, exist_ok=True)
        complete.touch()


@contextmanager
def _written_to(path: Path, stream: TextIO) -> Generator[None, None, None]:
    """Redirect a stream of this process and its children to a file, at the level of file descriptors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        number = stream.fileno()
    except (AttributeError, OSError, ValueError):  # the stream of a notebook or a test is not a file: leave it
        path.touch()
        yield
        return
    before = os.dup(number)
    try:
        with path.open("ab") as file:
            stream.flush()
            os.dup2(file.fileno(), number)
        try:
            yield
        finally:
            stream.flush()
            os.dup2(before, number)
    finally:
        os.close(before)
