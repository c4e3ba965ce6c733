"""A process that does one task and ends, such as preparing tables, so that its imports take no memory afterwards."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from types import TracebackType

from phantoms_dagster.embedded.processes import Process, ProcessSpec, launch

CHUNK_BYTES = 65_536


class TaskTooSlow(Exception):
    """The task has not ended in time."""


class Task:
    """A process that runs during the `with` block and is killed at its end if it still runs. For one use."""

    def __init__(self, spec: ProcessSpec) -> None:
        self._spec = spec
        self._process: Process | None = None
        self._output = -1
        self._written = bytearray()

    def __enter__(self) -> Task:
        """Start the process."""
        self._output, writing = os.pipe()
        try:
            self._process = (self._spec.launch or launch)(self._spec, writing)
        except BaseException:
            os.close(self._output)
            raise
        finally:
            os.close(writing)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Kill the process and its group, if it still runs."""
        assert self._process is not None
        if self._process.returncode is None and self._process.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._output)

    def result(self, seconds: float) -> tuple[int, str]:
        """Wait for the end. Returns the exit code and the output. Raises TaskTooSlow after `seconds`."""
        assert self._process is not None
        deadline = time.monotonic() + seconds
        while not self.over(max(0.0, deadline - time.monotonic())):
            if time.monotonic() >= deadline:
                raise TaskTooSlow
        return self._process.wait(), self._written.decode("utf-8", "replace")

    def over(self, seconds: float = 0.0) -> bool:
        """Whether the process has ended. Waits up to `seconds` for its end or its next output."""
        readable, _, _ = select.select([self._output], [], [], seconds)
        if not readable:
            return False
        chunk = os.read(self._output, CHUNK_BYTES)
        self._written += chunk
        return not chunk
