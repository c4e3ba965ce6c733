"""One child process: what to run, as whom, its log, its group. When to start or stop it is the supervisor's matter."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
LOG_LIMIT_BYTES = 20_000_000
TAIL_LINES = 15
# What every pipe holds without a reader.
STDIN_LIMIT_BYTES = 4_096


@dataclass(frozen=True)
class ProcessIdentity:
    """As whom a child runs: as us, as another account inside a user namespace, or as that account itself."""

    kind: Literal["same", "namespace", "become"] = "same"
    uid: int = -1
    gid: int = -1

    def __str__(self) -> str:
        return self.kind if self.kind == "same" else f"{self.kind}:{self.uid}:{self.gid}"


SAME = ProcessIdentity()


class Process(Protocol):
    """A process that was started. `returncode` is None until `wait` has returned."""

    @property
    def pid(self) -> int:
        """Its id; 0 when it could not be started."""
        ...

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal."""
        ...

    def wait(self) -> int:
        """Wait for its end; the exit code."""
        ...


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """A process to supervise.

    `env` is its whole environment (None: ours). `ready` is asked from the supervisor's thread until it says True, for
    `ready_timeout` seconds at most; an exception of it ends the start-up; None: ready once started. `complaint` is asked once
    after that: given the process id, it says what is wrong with what was started, or None; a complaint stops the process.
    `when`: in a supervisor that starts all together, the process starts as soon as this says True; so does each restart.
    `launch` starts it in another way than by its command: given the spec and the file of its log, in a session of its own.
    `stdin` is what the process reads from its standard input, at most `STDIN_LIMIT_BYTES`; it may be secret. `restart`: start
    it again when it ends by itself. `stop_signal` goes to its group, SIGKILL follows `grace_seconds` later.
    `title` is what people are told instead of the name, which is also that of its log.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    identity: ProcessIdentity = SAME
    when: Callable[[], bool] | None = None
    launch: Callable[[ProcessSpec, int], Process] | None = None
    ready: Callable[[], bool] | None = None
    ready_timeout: float = 60.0
    complaint: Callable[[int], str | None] | None = None
    stdin: str = field(default="", repr=False)
    restart: bool = True
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 10.0
    title: str = ""

    @property
    def called(self) -> str:
        """What people are told."""
        return self.title or self.name


def command(argv: Sequence[str], *, death_signal: signal.Signals, identity: ProcessIdentity = SAME) -> list[str]:
    """The command line that runs `argv` under that identity and sends it `death_signal` when this process is gone.

    Linux binds the death signal to the thread that forks: start long-lived children from a thread that lives as long.
    """
    return [sys.executable, "-I", "-S", str(BOOTSTRAP), str(os.getpid()), str(int(death_signal)), str(identity), "--", *argv]


@contextlib.contextmanager
def standard_input(text: str) -> Iterator[int]:
    """A file descriptor that a child reads `text` from: a pipe, so that it lies in no file and on no command line."""
    data = text.encode()
    if len(data) > STDIN_LIMIT_BYTES:
        raise ValueError(f"a standard input of {len(data)} bytes would not fit into a pipe")
    reading, writing = os.pipe()
    try:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(data)
        yield reading
    finally:
        os.close(reading)


def server_environment() -> dict[str, str]:
    """The environment of an embedded server: nothing of a shell that would change it (PGDATA, PGOPTIONS, locales).

    The library paths are for the Python of the bootstrap, which some installations cannot start without. initdb reads TZ.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def launch(spec: ProcessSpec, out: int, *, stdin: int | None = None) -> subprocess.Popen[bytes]:
    """Start the process of a spec by its command, in a session of its own. `stdin`: instead of the text that the spec has."""
    with contextlib.ExitStack() as given:
        return subprocess.Popen(
            command(spec.argv, death_signal=spec.stop_signal, identity=spec.identity),
            stdin=given.enter_context(standard_input(spec.stdin)) if stdin is None else stdin,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=None if spec.env is None else dict(spec.env),
            cwd=spec.cwd,
            start_new_session=True,
        )


class Child:
    """A spec and its process, if it runs. `spawn` may be called again after the process has ended."""

    def __init__(self, spec: ProcessSpec, log: Path) -> None:
        self.spec = spec
        self.log = log
        self._process: Process | None = None
        self._waiter: threading.Thread | None = None
        self._tail_from = 0
        self._swept = True

    @property
    def pid(self) -> int | None:
        """The process id, which is the group's too; None before the first start."""
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not been reaped yet."""
        return self._process is not None and self._process.returncode is None

    def spawn(self, ended: Callable[[Child, int], None]) -> None:
        """Start the process in a session of its own. `ended(child, exit code)` is called from a thread when it ends."""
        self.rotate_log()
        with self.log.open("ab") as out:
            self._tail_from = os.fstat(out.fileno()).st_size
            process = (self.spec.launch or launch)(self.spec, out.fileno())
        self._process = process
        self._swept = False
        self._waiter = threading.Thread(target=lambda: ended(self, process.wait()), name=f"wait-{self.spec.name}", daemon=True)
        self._waiter.start()

    def signal_group(self, number: signal.Signals) -> None:
        """Signal the process and what it has started, if any of it is left."""
        # macOS answers EPERM, not ESRCH, for a group of zombies.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._process is not None and self._process.pid:
                os.killpg(self._process.pid, number)

    def sweep(self) -> None:
        """After the end of the process: kill what it left behind in its group. Once, since the id may be given away later."""
        if not self._swept:
            self._swept = True
            self.signal_group(signal.SIGKILL)
        if self._waiter is not None:
            self._waiter.join()

    def tail(self) -> str:
        """The last lines that this run of the process has written to its log."""
        with self.log.open("rb") as log:
            log.seek(max(self._tail_from, os.fstat(log.fileno()).st_size - 16_384))
            lines = log.read().decode("utf-8", "replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-TAIL_LINES:]) or "    (it wrote nothing)"

    def rotate_log(self) -> None:
        """Put a log that has grown too long aside. Of a running process a few lines may be lost: it keeps the file open.

        Such a process appends, so that it goes on at the beginning of a file that was emptied. A full disk is left alone: the log
        then stays as it is.
        """
        if not self.log.exists() or self.log.stat().st_size <= LOG_LIMIT_BYTES:
            return
        aside = self.log.with_suffix(".log.1")
        if not self.running:
            self.log.replace(aside)
            return
        with contextlib.suppress(OSError):
            shutil.copyfile(self.log, aside)
            os.truncate(self.log, 0)
            self._tail_from = 0
