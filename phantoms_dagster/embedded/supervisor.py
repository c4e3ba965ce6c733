"""Starts processes in order, keeps them running, and stops them in reverse order.

One thread starts, watches and stops all children: the kernel ties a child's death signal to the thread that forked it, so this
thread must live as long as they do. It sleeps until a child ends, a restart is due, a stop is requested, or the sizes of the logs
are to be checked.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from phantoms_dagster.domain.errors import PhantomsError
from phantoms_dagster.embedded.processes import Child, ProcessSpec

__all__ = ["ProcessFailed", "ProcessSpec", "Supervisor", "interrupt_on_signals"]

# A process that ran this long worked, so it is restarted after the first delay. None of ours takes longer to fail at start.
STEADY_SECONDS = 10.0
FIRST_READY_PAUSE = 0.02
LONGEST_READY_PAUSE = 0.25
LOGS_SECONDS = 60.0  # between checks of the logs' sizes


class ProcessFailed(PhantomsError):
    """A process ended during its start or was not ready in time. The message ends with the tail of its log."""


@dataclass(frozen=True)
class _Exited:
    child: Child
    code: int


@dataclass(frozen=True)
class _StopAsked:
    at_once: bool


class _Stopping(Exception):
    """A stop was requested: abandon the current work."""


class Supervisor:
    """Runs a list of processes. For one use.

    `logs`: the folder for each process's `<name>.log`. `notify` is called, in the supervisor's thread, with a sentence for people
    when a process ends by itself. A crashed process is restarted after `backoff[0]` seconds; the delay doubles each time up to
    `backoff[1]` and starts over once the process has run for `steady_seconds`. `together`: start all at once, else each when the
    one before is ready. `ready` is called, in the supervisor's thread, with the name of a process that is ready, its start-up
    time in seconds, and the names of those still starting.
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        *,
        logs: Path,
        notify: Callable[[str], None] = lambda _: None,
        backoff: tuple[float, float] = (1.0, 30.0),
        steady_seconds: float = STEADY_SECONDS,
        together: bool = False,
        ready: Callable[[str, float, list[str]], None] = lambda *_: None,
    ) -> None:
        self._children = [Child(spec, logs / f"{spec.name}.log") for spec in specs]
        self._logs = logs
        self._notify = notify
        self._backoff = backoff
        self._steady_seconds = steady_seconds
        self._together = together
        self._ready = ready
        self._delays: dict[Child, float] = {}
        self._started_at: dict[Child, float] = {}
        self._due: dict[Child, float] = {}
        # Children whose end is not known yet. A process may be gone a moment before its end is in the inbox.
        self._unheard: set[Child] = set()
        self._inbox: queue.SimpleQueue[_Exited | _StopAsked] = queue.SimpleQueue()
        self._at_once = False
        self._failure: BaseException | None = None
        self._up = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def pids(self) -> dict[str, int]:
        """The ids of the running processes, by name."""
        return {c.spec.name: c.pid for c in self._children if c.running and c.pid is not None}

    def start(self) -> None:
        """Start all and wait until they are ready. Raises ProcessFailed, and then nothing is left running."""
        self.begin()
        self.wait()

    def begin(self) -> None:
        """Start all without waiting for them; see `wait`."""
        if self._thread is not None:
            raise RuntimeError("a supervisor is started once")
        self._logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until all are ready. Raises ProcessFailed, and then nothing is left running."""
        if self._thread is None:
            raise RuntimeError("nothing was started")
        try:
            self._up.wait()
        except KeyboardInterrupt:
            self.stop()
            raise
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def stop(self) -> None:
        """Stop all in reverse order and wait for their ends. An interrupt during that kills all at once and is raised again."""
        if self._thread is None:
            return
        self._inbox.put(_StopAsked(at_once=False))
        try:
            self._ended.wait()
        except KeyboardInterrupt:
            self._inbox.put(_StopAsked(at_once=True))
            self._ended.wait()
            raise
        self._thread.join()

    def run(self) -> None:
        """Start all, wait for SIGINT, SIGTERM, SIGHUP or the end of all, then stop all. Main thread only.

        Raises ProcessFailed when the start-up fails, KeyboardInterrupt when a second Ctrl-C killed all at once.
        """
        with interrupt_on_signals():
            try:
                self.start()
                self._ended.wait()
            except KeyboardInterrupt:
                pass
            finally:
                self.stop()
        if self._failure is not None:
            raise self._failure

    # ------------------------------------------------------------------ the supervisor's thread

    def _supervise(self) -> None:
        try:
            if self._together:
                self._start_together()
            else:
                for child in self._children:
                    self._start(child)
            self._up.set()
            self._watch()
        except _Stopping:
            pass
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            self._failure = error
        finally:
            try:
                self._stop_all()
            finally:
                self._ended.set()
                self._up.set()

    def _start(self, child: Child) -> None:
        self._spawn(child)
        self._await_ready(child)
        self._is_ready(child, [other for other in self._children if other not in self._started_at])

    def _start_together(self) -> None:
        waiting, pause = list(self._children), FIRST_READY_PAUSE
        while waiting:
            for child in list(waiting):
                if child not in self._started_at:
                    if child.spec.when is not None and not child.spec.when():
                        continue
                    self._spawn(child)
                if child.spec.ready is None or child.spec.ready():
                    waiting.remove(child)
                    self._is_ready(child, waiting)
                elif time.monotonic() >= self._started_at[child] + child.spec.ready_timeout:
                    raise self._failed(child, f"was not ready after {child.spec.ready_timeout:g} s")
            if waiting:
                self._next_while_starting(pause)
                pause = min(pause * 1.5, LONGEST_READY_PAUSE)

    def _is_ready(self, child: Child, waiting: Sequence[Child]) -> None:
        complaint = child.spec.complaint(child.pid) if child.spec.complaint and child.pid is not None else None
        if complaint is not None:
            raise self._failed(child, f"was stopped, because {complaint}")
        with contextlib.suppress(OSError):  # see `_say`
            self._ready(child.spec.name, time.monotonic() - self._started_at[child], [other.spec.name for other in waiting])

    def _await_ready(self, child: Child) -> None:
        if child.spec.ready is None:
            return
        pause = FIRST_READY_PAUSE
        deadline = time.monotonic() + child.spec.ready_timeout
        while not child.spec.ready():
            if time.monotonic() >= deadline:
                raise self._failed(child, f"was not ready after {child.spec.ready_timeout:g} s")
            self._next_while_starting(pause)
            pause = min(pause * 1.5, LONGEST_READY_PAUSE)

    def _next_while_starting(self, pause: float) -> None:
        exited = self._next(pause)
        if exited is not None:
            raise self._failed(exited.child, f"stopped during its start ({_how(exited.code)})")

    def _watch(self) -> None:
        looked = time.monotonic()
        while self._unheard or self._due:
            exited = self._next(min([*self._due.values(), looked + LOGS_SECONDS]) - time.monotonic())
            if exited is not None:
                self._plan_restart(exited)
            if time.monotonic() >= looked + LOGS_SECONDS:
                looked = time.monotonic()
                for child in self._children:
                    child.rotate_log()
            for child in [c for c, due in self._due.items() if due <= time.monotonic()]:
                if child.spec.when is not None and not child.spec.when():
                    self._due[child] = time.monotonic() + LONGEST_READY_PAUSE
                    continue
                del self._due[child]
                self._spawn(child)

    def _spawn(self, child: Child) -> None:
        self._started_at[child] = time.monotonic()
        self._unheard.add(child)
        child.spawn(lambda ended, code: self._inbox.put(_Exited(ended, code)))

    def _plan_restart(self, exited: _Exited) -> None:
        child, how = exited.child, _how(exited.code)
        child.sweep()  # the rest of its group would disturb its successor
        if not child.spec.restart:
            self._say(f"{child.spec.called} has ended ({how}).")
            return
        first, longest = self._backoff
        steady = time.monotonic() - self._started_at[child] >= self._steady_seconds
        delay = first if steady or child not in self._delays else min(self._delays[child] * 2, longest)
        self._delays[child] = delay
        self._due[child] = time.monotonic() + delay
        self._say(f"{child.spec.called} has stopped ({how}) and restarts in {delay:g} s. Its log: {child.log}")

    def _next(self, seconds: float) -> _Exited | None:
        """The next process that ends within `seconds`, else None. Raises _Stopping when a stop is requested."""
        try:
            event = self._inbox.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None
        if isinstance(event, _StopAsked):
            self._at_once = event.at_once
            raise _Stopping
        self._unheard.discard(event.child)
        return event

    def _stop_all(self) -> None:
        for child in reversed(self._children):
            if child.running and not self._at_once:
                child.signal_group(child.spec.stop_signal)
                self._await_end(child, child.spec.grace_seconds)
            if child.running:
                child.signal_group(signal.SIGKILL)
                self._await_end(child, None)
            child.sweep()

    def _await_end(self, child: Child, seconds: float | None) -> None:
        deadline = None if seconds is None else time.monotonic() + seconds
        while child.running:
            try:
                event = self._inbox.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return
            if isinstance(event, _StopAsked) and event.at_once:
                self._at_once = True
                for other in self._children:
                    if other.running:
                        other.signal_group(signal.SIGKILL)

    def _failed(self, child: Child, what: str) -> ProcessFailed:
        return ProcessFailed(f"{child.spec.called} {what}. The end of {child.log}:\n{child.tail()}")

    def _say(self, message: str) -> None:
        # The terminal may be gone (SIGHUP), which must not end the supervisor.
        with contextlib.suppress(OSError):
            self._notify(message)


@contextlib.contextmanager
def interrupt_on_signals() -> Iterator[None]:
    """Within the block, SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt. After the first, only SIGINT raises it again.

    SIGINT needs a handler too, because a shell starts `cmd &` with SIGINT ignored. Main thread only.
    """
    asked = False

    def interrupt(number: int, _: FrameType | None) -> None:
        nonlocal asked
        if asked and number != signal.SIGINT:
            return
        asked = True
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
