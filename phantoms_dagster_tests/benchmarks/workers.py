"""A group of worker processes, seen from the benchmark that started it. `fleet` and `callers` say what they do."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phantoms_dagster.embedded.processes import ProcessSpec
from phantoms_dagster.embedded.supervisor import Supervisor
from phantoms_dagster_tests.benchmarks.cpu import processes


class Fleet:
    """A group of worker processes under a supervisor of their own."""

    def __init__(self, name: str, argv: tuple[str, ...], environment: Mapping[str, str], logs: Path) -> None:
        self._log = logs / f"{name}.log"
        spec = ProcessSpec(
            name=name, argv=argv, env=environment, restart=False, ready=lambda: bool(self.events("pids")), grace_seconds=1.0
        )
        self._supervisor = Supervisor([spec], logs=logs)

    def start(self) -> None:
        """Start the group and wait until its processes exist."""
        self._supervisor.start()

    def stop(self) -> None:
        """Stop the group."""
        self._supervisor.stop()

    @property
    def running(self) -> bool:
        """Whether any of its processes is still running."""
        return bool(self._supervisor.pids)

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return list(self.events("pids")[0]["pids"])

    @property
    def alive(self) -> list[int]:
        """The process ids of the workers that exist now."""
        children = processes()
        return [worker for group in self._supervisor.pids.values() for worker in children.get(group, [])]

    @property
    def begin(self) -> float:
        """When the workers got the signal to begin, in seconds since the epoch."""
        return float(self.events("pids")[0]["start"])

    def kill(self, pids: Sequence[int]) -> None:
        """kill -9 some of the workers."""
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events so far that have that field."""
        if not self._log.exists():
            return []
        lines = [line for line in self._log.read_text("utf-8", "replace").splitlines(keepends=True) if line.startswith("{")]
        return [event for event in (json.loads(line) for line in lines if line.endswith("}\n")) if name in event]

    def complaints(self) -> list[str]:
        """Return the first line of each error that the workers logged."""
        if not self._log.exists():
            return []
        return [line for line in self._log.read_text("utf-8", "replace").splitlines() if " ERROR " in line]
