"""Opens a file in the system's player, or in the browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import webbrowser
from pathlib import Path

# An opener that finds no player fails at once. One that is still running after this time has become the player.
_SECONDS = 3.0


def open_file(file: Path) -> str | None:
    """Open the file. Return what opened it, or None when this machine has neither a screen, a player nor a browser."""
    # Without a screen `webbrowser` might start a text browser, which would take over the terminal and show nothing.
    if not _screen():
        return None
    starter = shutil.which("open" if sys.platform == "darwin" else "xdg-open")
    if starter is not None and _started([starter, str(file)]):
        return "the system's player"
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
