"""A pseudo-terminal of any width, and a program that runs many commands in it one after the other: one start for all of them."""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.cells import cell_len

BEGIN, END = "\x1e", "\x1f"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[=>]")


@dataclass(frozen=True)
class Shown:
    """What one command showed at one width, without its colours."""

    command: tuple[str, ...]
    width: int
    text: str
    exit_code: int

    @property
    def rows(self) -> list[str]:
        """As the terminal breaks it: no row is wider than the terminal."""
        return [row for line in self.text.splitlines() for row in _broken(line, self.width)]


class Terminal:
    """The keyboard's and the screen's end of a pseudo-terminal."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.text = ""
        self._master = master
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def until(self, wanted: str | Callable[[str], bool], seconds: float = 120) -> None:
        """Read until this, or what this says yes to, was on the screen, or until the program has ended."""
        deadline = time.monotonic() + seconds
        there = wanted if callable(wanted) else lambda text: wanted in text
        while not there(self.text) and self._read(deadline - time.monotonic()):
            assert time.monotonic() < deadline, self.text

    def rest(self, seconds: float = 300) -> str:
        """Read until the program ends; everything it showed."""
        deadline = time.monotonic() + seconds
        while self._read(deadline - time.monotonic()):
            assert time.monotonic() < deadline, self.text
        self.process.wait(timeout=30)
        return self.text

    def modes(self) -> list[object]:
        """How the terminal treats keys and lines now."""
        return list(termios.tcgetattr(self._master))

    def _read(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], max(0.0, seconds))[0]:
            return True
        try:
            found = os.read(self._master, 65_536)
        except OSError:  # EIO: the program's end is closed
            return False
        self.text += self._decode(found)
        return bool(found)


@contextmanager
def terminal(command: Sequence[str], environment: Mapping[str, str], *, columns: int, lines: int = 40) -> Iterator[Terminal]:
    """Run a program in a terminal of that size. What is still running at the end is killed."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    given = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env={**given, "TERM": "xterm-256color"}, start_new_session=True
    )
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)


def shown_in_terminals(
    commands: Sequence[Sequence[str]], environment: Mapping[str, str], widths: Sequence[int], *, seconds: float = 280
) -> list[Shown]:
    """What each command shows at each width. The commands run one after the other in one process, without a keyboard."""
    asked = json.dumps({"widths": list(widths), "commands": [list(command) for command in commands]})
    program = [sys.executable, "-W", "ignore", "-m", "phantoms_dagster_tests.terminal", asked]
    with terminal(program, environment, columns=widths[0]) as screen:
        text = screen.rest(seconds)
    assert screen.process.returncode == 0, text[-3_000:]
    found = []
    for part in text.split(BEGIN)[1:]:
        head, _, rest = part.partition("\n")
        body, _, code = rest.rpartition(END)
        width, number = map(int, head.split())
        clean = _CONTROL.sub("", body).replace("\r\n", "\n").replace("\r", "\n")
        found.append(Shown(tuple(commands[number]), width, clean, int(code.split()[0])))
    return found


def whole(shown: Shown, key: str) -> bool:
    """Whether the key is on one row wherever it is shown."""
    squeezed = re.sub(r"[\s\u2502]", "", "".join(shown.rows))
    return squeezed.count(key) == sum(row.count(key) for row in shown.rows)


def _broken(line: str, width: int) -> Iterator[str]:
    row, used = "", 0
    for character in line:
        cells = cell_len(character)
        if used + cells > width:
            yield row
            row, used = "", 0
        row, used = row + character, used + cells
    yield row


def _run(asked: Mapping[str, list[object]]) -> None:
    from phantoms_dagster.cli.main import main  # noqa: PLC0415  in the process of the terminal alone

    # There is no one to answer, so a question ends the command.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for width in asked["widths"]:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, int(str(width)), 0, 0))
        for number, command in enumerate(asked["commands"]):
            print(f"{BEGIN}{width} {number}", flush=True)
            sys.argv = ["phantoms", *command]  # type: ignore[misc]
            code: object = 0
            try:
                main()
            except SystemExit as stop:
                code = stop.code or 0
            print(f"{END}{code}", flush=True)


if __name__ == "__main__":
    _run(json.loads(sys.argv[1]))
