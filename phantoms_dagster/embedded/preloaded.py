"""A parent process that has imported everything and forks other processes on request, so that they start fast and share memory.

This is the supervisor's side; the parent runs `execution.preloaded`. Messages are JSON packets on a socket:
    to the parent      {"id", "argv", "environment", "death_signal"}, with the descriptor of the log
    from the parent    {"ready"}, {"id", "pid"}, {"pid", "code"} once a process has ended
Linux only: elsewhere forking a large program is unsafe, or processes would not end with their parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
from typing import Any

from phantoms_dagster.embedded.processes import Process, ProcessSpec, launch

SUPPORTED = sys.platform == "linux"
# A fork takes a few milliseconds, longer on a machine that is out of memory.
ANSWER_SECONDS = 30.0
# How long to wait until killed processes have released their ports.
GONE_SECONDS = 5.0
PACKET_BYTES = 1 << 16
NEVER_STARTED = 127


class Forked:
    """A process that the parent has forked. Implements `Process`."""

    def __init__(self) -> None:
        self.pid = 0
        self.returncode: int | None = None
        self._answered = threading.Event()
        self._ended = threading.Event()

    def wait(self) -> int:
        """Wait for its end. Returns the exit code."""
        self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def started(self, pid: int) -> None:
        """Record that it runs."""
        self.pid = pid
        self._answered.set()

    def ended(self, code: int) -> None:
        """Record that it has ended or was never started."""
        if self.returncode is None:
            self.returncode = code
        self._answered.set()
        self._ended.set()

    def await_answer(self, seconds: float) -> bool:
        """Wait until it runs or has failed to start. False when neither is known after `seconds`."""
        return self._answered.wait(seconds)


class Preloaded:
    """The preloaded parent of one supervisor. `launch_parent` and `fork` are `launch` functions for specs.

    When the parent ends, all processes that it forked are killed, and are reported as killed once they are gone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._ready = False
        self._asked: dict[int, Forked] = {}
        self._running: dict[int, Forked] = {}
        self._number = 0

    def ready(self) -> bool:
        """Whether the parent has imported everything."""
        with self._lock:
            return self._ready

    def launch_parent(self, spec: ProcessSpec, out: int) -> Process:
        """Start the parent. Its standard input is the other end of our new socket."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            process = launch(spec, out, stdin=theirs.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        with self._lock:
            self._channel = ours
        threading.Thread(target=self._listen, args=(ours,), name="preloaded", daemon=True).start()
        return process

    def fork(self, spec: ProcessSpec, out: int) -> Process:
        """Ask the parent to run the spec's `python -m MODULE ...` in a fork. If that fails, the process counts as ended."""
        forked = Forked()
        with self._lock:
            self._number += 1
            number, channel = self._number, self._channel if self._ready else None
            self._asked[number] = forked
        wish = {
            "id": number,
            "argv": spec.argv,
            "environment": dict(os.environ if spec.env is None else spec.env),
            "death_signal": int(spec.stop_signal),
        }
        try:
            if channel is not None:
                socket.send_fds(channel, [json.dumps(wish).encode("utf-8", "surrogateescape")], [out])
        except OSError:
            channel = None
        if channel is None or not forked.await_answer(ANSWER_SECONDS):
            forked.ended(NEVER_STARTED)
            with self._lock:
                self._asked.pop(number, None)
        return forked

    def _listen(self, channel: socket.socket) -> None:
        with channel:
            while packet := _received(channel):
                self._heed(json.loads(packet))
            with self._lock:
                if self._channel is channel:
                    self._channel, self._ready = None, False
                lost, self._asked, self._running = [*self._asked.values(), *self._running.values()], {}, {}
        for forked in lost:
            _kill(forked.pid)
            forked.ended(-signal.SIGKILL)

    def _heed(self, said: dict[str, Any]) -> None:
        with self._lock:
            if said.get("ready"):
                self._ready = True
            elif "id" in said:
                if (forked := self._asked.pop(said["id"], None)) is not None:
                    self._running[said["pid"]] = forked
                    forked.started(said["pid"])
            elif (forked := self._running.pop(said["pid"], None)) is not None:
                forked.ended(said["code"])


def _received(channel: socket.socket) -> bytes:
    try:
        return channel.recv(PACKET_BYTES)
    except OSError:
        return b""


def _kill(pid: int) -> None:
    """Kill the process and its group, and wait until it is gone, because its successor needs its port."""
    if not pid:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        gone = os.pidfd_open(pid)
        try:
            os.killpg(pid, signal.SIGKILL)
            select.select([gone], [], [], GONE_SECONDS)
        finally:
            os.close(gone)
