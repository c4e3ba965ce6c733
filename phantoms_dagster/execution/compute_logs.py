"""What steps write to standard output and error: into files, for the UI, and our own log lines to the worker's log as well.

Dagster's manager starts four processes for each run to copy the files to the worker's log, two of them Python interpreters; that is
more CPU than the rest of a small run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from dagster._core.execution.compute_logs import redirect_to_file
from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeIOType
from dagster._core.storage.local_compute_log_manager import IO_TYPE_EXTENSION, LocalComputeLogManager
from dagster._serdes import ConfigurableClassData
from dagster._utils import ensure_file, touch_file

from phantoms_dagster.execution.without_stores import temporary_folder
from phantoms_dagster.wiring import logs


class FileComputeLogManager(LocalComputeLogManager):
    """`compute_logs:` of dagster.yaml, without config: the files lie in `$DAGSTER_HOME/storage`, as Dagster's own do."""

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
        """Let this process, and those it starts, write into the files of `log_key`."""
        with ExitStack() as captured:
            captured.enter_context(logs.also_to_the_console())
            for stream, kind in ((sys.stdout, ComputeIOType.STDOUT), (sys.stderr, ComputeIOType.STDERR)):
                path = self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[kind])
                ensure_file(path)
                captured.enter_context(redirect_to_file(stream, path))
            yield CapturedLogContext(log_key)
        # How Dagster knows that the files are complete.
        touch_file(self.complete_artifact_path(log_key))  # type: ignore[no-untyped-call]
