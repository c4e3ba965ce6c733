"""A process that does one thing and ends, such as preparing tables: what it imports for that is gone with it."""

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
    """It has not ended in time."""


class Task:
    """Runs while the block does: it is killed at its end if it has not ended by itself. For one use."""

    def __init__(self, spec: ProcessSpec) -> None:
        self._spec = spec
        self._process: Process | None = None
        self._output = -1
        self._written = bytearray()

    def __enter__(self) -> Task:
        """Start it."""
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
        """Kill what is left of it."""
        assert self._process is not None
        if self._process.returncode is None and self._process.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._output)

    def result(self, seconds: float) -> tuple[int, str]:
        """Its exit code and all that it wrote, once it has ended. Raises TaskTooSlow."""
        assert self._process is not None
        deadline = time.monotonic() + seconds
        while not self.over(max(0.0, deadline - time.monotonic())):
            if time.monotonic() >= deadline:
                raise TaskTooSlow
        return self._process.wait(), self._written.decode("utf-8", "replace")

    def over(self, seconds: float = 0.0) -> bool:
        """Whether it has ended, or does within that time unless it writes."""
        readable, _, _ = select.select([self._output], [], [], seconds)
        if not readable:
            return False
        chunk = os.read(self._output, CHUNK_BYTES)
        self._written += chunk
        return not chunk
