"""`phantoms demo --review`: what the person who decides is told, and when."""

from __future__ import annotations

import shlex
from pathlib import Path

from phantoms_dagster.domain.counting import counted


class DemoReviewer:
    """Somebody who reviews the demo's films. `home`: the data directory, by which commands find the demo."""

    def __init__(self, desk_url: str, home: Path) -> None:
        self._command = f"PHANTOMS_HOME={shlex.quote(str(home))} phantoms approve --all"
        self._desk = f"{desk_url}review"
        self._waiting = 0

    def look(self, waiting: int) -> list[str]:
        """Take note of how many films wait for a decision; what is new to say about it."""
        before, self._waiting = self._waiting, waiting
        if waiting > before:
            return [line for line, _ in self.sentences]
        return ["every film is decided on: the demo goes on"] if before and not waiting else []

    @property
    def sentences(self) -> list[tuple[str, str]]:
        """What they should do now, each sentence with its style. Addresses and commands have lines of their own."""
        if not self._waiting:
            return []
        films = counted(self._waiting, "film waits", "films wait")
        return [
            (f"{films} for you. Watch and decide at the desk (Ctrl-C ends the demo):", "bold"),
            (f"  {self._desk}", "bold cyan"),
            ("or approve all of them in another terminal:", ""),
            (f"  {self._command}", "cyan"),
        ]
