"""`phantoms demo --review`: tells the person when and where to decide."""

from __future__ import annotations

import shlex
from pathlib import Path

from phantoms_dagster.domain.counting import counted


class DemoReviewer:
    """The instructions for the person who reviews. `home` is the data directory, with which commands find the demo."""

    def __init__(self, desk_url: str, home: Path) -> None:
        self._command = f"PHANTOMS_HOME={shlex.quote(str(home))} phantoms approve --all"
        self._desk = f"{desk_url}review"
        self._waiting = 0

    def look(self, waiting: int) -> list[str]:
        """Take the number of videos that wait for a decision. Return what is new to say."""
        before, self._waiting = self._waiting, waiting
        if waiting > before:
            return [line for line, _ in self.sentences]
        return ["you have decided on every video; the demo continues"] if before and not waiting else []

    @property
    def sentences(self) -> list[tuple[str, str]]:
        """What the person should do now: sentences with styles. URLs and commands have their own lines."""
        if not self._waiting:
            return []
        videos = counted(self._waiting, "video waits", "videos wait")
        return [
            (f"{videos} for you. Watch and decide at the desk (Ctrl-C ends the demo):", "bold"),
            (f"  {self._desk}", "bold cyan"),
            ("or approve all of them in another terminal:", ""),
            (f"  {self._command}", "cyan"),
        ]
