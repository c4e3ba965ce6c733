"""Reads single keys from a terminal, without Enter. The terminal is always restored afterwards."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

_NAMED = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down", b"k": "up", b"j": "down", b"\x03": "ctrl-c"}


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """Yield the keyboard of standard input, which must be a terminal."""
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)
        yield Keyboard(number)
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


class Keyboard:
    """Reads keys as they are pressed."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._typed = b""

    def key(self, seconds: float) -> str:
        """Return the next key; arrows, j and k as `up` and `down`. Empty when none is pressed within `seconds`.

        Returns `q` when the terminal is closed.
        """
        if not self._typed:
            if not select.select([self._number], [], [], seconds)[0]:
                return ""
            self._typed = os.read(self._number, 1_024)
            if not self._typed:
                return "q"
        for keys, name in _NAMED.items():
            if self._typed.startswith(keys):
                self._typed = self._typed[len(keys) :]
                return name
        character = self._typed.decode("utf-8", "replace")[0]
        self._typed = self._typed[len(character.encode()) if character != "\ufffd" else 1 :]
        return character
