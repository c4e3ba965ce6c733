"""One child process: its command, its identity, its log and its process group. `supervisor` starts and stops it."""

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
# Every pipe can hold this many bytes without a reader.
STDIN_LIMIT_BYTES = 4_096


@dataclass(frozen=True)
class ProcessIdentity:
    """The account of a child: the same as ours, another account inside a user namespace, or that account itself."""

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
        """The process id; 0 if it could not be started."""
        ...

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal."""
        ...

    def wait(self) -> int:
        """Wait for its end. Returns the exit code."""
        ...


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """A process to supervise.


    - `env`: the whole environment (None: ours).
    - `ready`: called in the supervisor's thread until it returns True, for at most `ready_timeout` seconds. An exception from it
      ends the start-up. None: ready once started.
    - `complaint`: called once after that with the process id. Returns what is wrong with the process, which then is stopped, or
      None.
    - `when`: the process starts and restarts only when this returns True (only in a supervisor that starts all together).
    - `launch`: starts the process in another way than by its command. It gets the spec and the descriptor of the log.
    - `stdin`: the text for its standard input, at most `STDIN_LIMIT_BYTES`; it may be secret.
    - `restart`: start it again when it ends by itself.
    - `stop_signal`: sent to its group to stop it; SIGKILL follows `grace_seconds` later.
    - `title`: the name for people, instead of `name`, which also names the log.
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
        """The name for people."""
        return self.title or self.name


def command(argv: Sequence[str], *, death_signal: signal.Signals, identity: ProcessIdentity = SAME) -> list[str]:
    """The command line that runs `argv` under that identity and sends it `death_signal` when this process dies.

    Linux ties the death signal to the thread that forks, so start a child from a thread that lives as long as the child.
    """
    return [sys.executable, "-I", "-S", str(BOOTSTRAP), str(os.getpid()), str(int(death_signal)), str(identity), "--", *argv]


@contextlib.contextmanager
def standard_input(text: str) -> Iterator[int]:
    """A file descriptor from which a child reads `text`: a pipe, so that the text is in no file and on no command line."""
    data = text.encode()
    if len(data) > STDIN_LIMIT_BYTES:
        raise ValueError(f"a standard input of {len(data)} bytes does not fit into a pipe")
    reading, writing = os.pipe()
    try:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(data)
        yield reading
    finally:
        os.close(reading)


def server_environment() -> dict[str, str]:
    """The environment of an embedded server, without a shell's variables that would affect it (PGDATA, PGOPTIONS, locales).

    Some installations of Python need the library paths to run the bootstrap. initdb reads TZ.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def launch(spec: ProcessSpec, out: int, *, stdin: int | None = None) -> subprocess.Popen[bytes]:
    """Start the process of a spec by its command, in its own session. `stdin`: a descriptor to use instead of the spec's text."""
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
    """A spec and its process, if any. `spawn` may be called again after the process has ended."""

    def __init__(self, spec: ProcessSpec, log: Path) -> None:
        self.spec = spec
        self.log = log
        self._process: Process | None = None
        self._waiter: threading.Thread | None = None
        self._tail_from = 0
        self._swept = True

    @property
    def pid(self) -> int | None:
        """The process id, which is also the group's id; None before the first start."""
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not been reaped yet."""
        return self._process is not None and self._process.returncode is None

    def spawn(self, ended: Callable[[Child, int], None]) -> None:
        """Start the process in its own session. `ended(child, exit code)` is called in a thread when it ends."""
        self.rotate_log()
        with self.log.open("ab") as out:
            self._tail_from = os.fstat(out.fileno()).st_size
            process = (self.spec.launch or launch)(self.spec, out.fileno())
        self._process = process
        self._swept = False
        self._waiter = threading.Thread(target=lambda: ended(self, process.wait()), name=f"wait-{self.spec.name}", daemon=True)
        self._waiter.start()

    def signal_group(self, number: signal.Signals) -> None:
        """Signal the process and the processes that it started, as far as they still run."""
        # macOS answers EPERM, not ESRCH, for a group of zombies.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._process is not None and self._process.pid:
                os.killpg(self._process.pid, number)

    def sweep(self) -> None:
        """After the process has ended, kill the rest of its group. Only once, because the id may be reused later."""
        if not self._swept:
            self._swept = True
            self.signal_group(signal.SIGKILL)
        if self._waiter is not None:
            self._waiter.join()

    def tail(self) -> str:
        """The last lines that the process wrote to its log since its last start."""
        with self.log.open("rb") as log:
            log.seek(max(self._tail_from, os.fstat(log.fileno()).st_size - 16_384))
            lines = log.read().decode("utf-8", "replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-TAIL_LINES:]) or "    (it wrote nothing)"

    def rotate_log(self) -> None:
        """Move a log that is too long to `.log.1`. Of a running process a few lines may be lost, because it keeps the file open.

        The process appends, so it continues at the beginning of the emptied file. On a full disk the log stays as it is.
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
