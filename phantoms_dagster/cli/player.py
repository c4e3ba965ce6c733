"""Showing a file to the person at this machine: the system's own player, else the browser, else nobody."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import webbrowser
from pathlib import Path

# A starter that found nothing to start says so at once; one that is still running then is a player.
_SECONDS = 3.0


def shown(file: Path) -> str | None:
    """Start showing the file; what shows it, or None when this machine has neither a player nor a browser."""
    if not _screen():
        return None
    starter = shutil.which("open" if sys.platform == "darwin" else "xdg-open")
    if starter is not None and _started([starter, str(file)]):
        return "the player of this system"
    # A text browser would take over the terminal and show nothing.
    return "the browser" if webbrowser.open(file.absolute().as_uri()) else None


def _screen() -> bool:
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _started(command: list[str]) -> bool:
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        process = subprocess.Popen(command, start_new_session=True, **quiet)  # type: ignore[call-overload]
    except OSError:
        return False
    try:
        return bool(process.wait(timeout=_SECONDS) == 0)
    except subprocess.TimeoutExpired:
        return True
