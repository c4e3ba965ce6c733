"""Stops servers that outlived a killed launcher, but never another process that has the same process id by now."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from phantoms_dagster.domain.errors import PhantomsError

PAUSE_SECONDS = 0.05
KILL_SECONDS = 10.0


def stop_leftover(pid: int, *, folder: Path, program: str, stop_signal: signal.Signals, seconds: float) -> None:
    """If process `pid` is `program` running in `folder`, stop it and wait for its end; send SIGKILL after `seconds`.

    On Linux the death of its launcher has already told it to stop. Raises PhantomsError when it cannot be stopped.
    """
    for number, max_wait in ((stop_signal, seconds), (signal.SIGKILL, KILL_SECONDS)):
        deadline = time.monotonic() + max_wait
        if not _works_in(pid, folder, program):
            return
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise PhantomsError(f"A {program} of another user (process {pid}) works in {folder}: stop it first.") from error
        while time.monotonic() < deadline:
            if not _works_in(pid, folder, program):
                return
            time.sleep(PAUSE_SECONDS)  # not our child, so there is no portable way to wait for it
    raise PhantomsError(f"The {program} of an earlier start (process {pid}) does not stop. Kill it, then start again.")


def _works_in(pid: int, folder: Path, program: str) -> bool:
    if sys.platform == "linux":
        process = Path(f"/proc/{pid}")
        try:
            return (process / "comm").read_text().strip().startswith(program) and (process / "cwd").readlink() == folder
        except OSError:  # gone, a zombie, or not readable for us
            return False
    listed = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return program in listed.stdout and str(folder) in listed.stdout
