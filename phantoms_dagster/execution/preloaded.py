"""`python -m phantoms_dagster.execution.preloaded --module M --also A ...`: imports everything once and forks what `up` runs.

Code server, daemon, web server and workers' parent import the same two thousand modules. A fork has them at once and shares their
memory. Every fork then runs `python -m MODULE ...` as if it had been started that way.

This process is single-threaded and has no connection except its channel on standard input, because forks break threads and
connections. `embedded.preloaded` describes the packets on the channel. When the channel closes, this process exits, and the kernel
sends each fork its death signal.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import json
import logging
import os
import runpy
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from setproctitle import getproctitle, setproctitle

from phantoms_dagster.execution.fork_memory import prepare_for_forks
from phantoms_dagster.execution.preload import MODULE, load
from phantoms_dagster.execution.processes import die_with
from phantoms_dagster.private import dagster as private
from phantoms_dagster.private.grpc import wait_calmly

# gRPC polls while it waits, so the code server's main thread woke up ten times a second. A signal still ends the wait at once.
GRPC_WAIT_SECONDS = 2.0
# Modules of the forked processes, besides those that runs need.
SERVICES = (
    "dagster_graphql.schema",
    "dagster_webserver.cli",
    "grpc_health.v1.health",
    "phantoms_dagster.execution.code_server",
    "phantoms_dagster.execution.compute_logs",
    "phantoms_dagster.execution.launcher",
    "phantoms_dagster.execution.plain_errors",
    "phantoms_dagster.execution.reaper",
    "phantoms_dagster.execution.run_worker",
    "phantoms_dagster.execution.sensor_looks",
    "phantoms_dagster.execution.storage",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
)
PACKET_BYTES = 1 << 20
CHANNEL = 0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
M_ARENA_MAX = -8


@dataclass(frozen=True)
class Program:
    """The program that a fork runs. `argv` is a Python command line: `python -m MODULE ...`."""

    argv: list[str]
    environment: dict[str, str]
    death_signal: int
    log: int

    @property
    def module(self) -> str:
        """The module to run."""
        return self.argv[self.argv.index("-m") + 1]

    @property
    def arguments(self) -> list[str]:
        """The arguments after the module."""
        return self.argv[self.argv.index("-m") + 2 :]


class ForkServer:
    """Forks processes on request and reports those that have ended. `serve` returns only in a fork, with the fork's program."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self) -> Program:
        """Serve until the channel closes. In a fork, return its program."""
        signal.signal(signal.SIGCHLD, _nothing)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        self._say({"ready": True})
        while True:
            found, _, _ = select.select([CHANNEL, self._wake], [], [])
            if self._wake in found:
                _drain(self._wake)
                self._collect()
            if CHANNEL in found and (program := self._asked()) is not None:
                return program

    def _asked(self) -> Program | None:
        """Fork for the next packet. Return the program in the fork, None in the parent."""
        packet, logs, _, _ = socket.recv_fds(self._channel, PACKET_BYTES, 1)
        if not packet:
            os._exit(0)  # the supervisor is gone; the kernel signals the forks
        wish: dict[str, Any] = json.loads(packet)
        program = Program(wish["argv"], wish["environment"], wish["death_signal"], logs[0])
        pid = self._fork(program)
        if pid == 0:
            return program
        os.close(program.log)
        self._say({"id": wish["id"], "pid": pid})
        return None

    def _fork(self, program: Program) -> int:
        """Fork. Return 0 in the fork, which has its own session, log and environment, and never runs the parent's handlers."""
        parent, (reading, writing) = os.getpid(), os.pipe2(os.O_CLOEXEC)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                os.close(reading)
                self._become(program, parent)
                os.close(writing)
                return 0
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(writing)
        os.read(reading, 1)  # wait until the fork leads its own process group: its pid is reported next, for signals to the group
        os.close(reading)
        return pid

    def _become(self, program: Program, parent: int) -> None:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        self._channel.detach()
        os.close(self._wake)
        os.close(self._waker)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(program.log, 1)
        os.dup2(program.log, 2)
        os.close(nothing)
        os.close(program.log)
        os.environ.clear()
        os.environ.update(program.environment)
        die_with(parent, signal.Signals(program.death_signal))

    def _collect(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._say({"pid": pid, "code": os.waitstatus_to_exitcode(status)})

    def _say(self, what: dict[str, Any]) -> None:
        try:
            self._channel.send(json.dumps(what).encode())
        except OSError:
            os._exit(0)


def _nothing(_: int, __: FrameType | None) -> None:
    """Ignore the signal. It has only woken `select`."""


def _drain(pipe: int) -> None:
    try:
        while os.read(pipe, 512):
            pass
    except BlockingIOError:
        return


def run(program: Program) -> int:
    """Run `python -m MODULE ...` in this process and return its exit code."""
    setproctitle(" ".join(program.argv))
    if arenas := program.environment.get("MALLOC_ARENA_MAX"):  # glibc reads it only at the start of a program
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, int(arenas))
    sys.argv = [program.module, *program.arguments]
    try:
        runpy.run_module(program.module, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            sys.stderr.write(f"{stop.code}\n")
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BaseException:  # noqa: BLE001 - as an interpreter does
        traceback.print_exc()
        return 1
    return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    given = _parser().parse_args(arguments)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads would not survive a fork
    getproctitle()  # it must locate the process title now: it cannot once the environment has changed
    gc.disable()  # none of the imports is garbage
    private.preload(private.IMPORTED_BY_SERVICES)
    for name in (*SERVICES, *given.also):
        importlib.import_module(name)
    load(given.module)
    gc.enable()
    prepare_for_forks()
    wait_calmly(GRPC_WAIT_SECONDS)
    program = ForkServer(socket.socket(fileno=CHANNEL)).serve()
    code = 1
    try:
        code = run(program)
    finally:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)  # a normal exit would tear down the shared memory and so copy all of it


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m phantoms_dagster.execution.preloaded", description="Forks what `up` runs.")
    parser.add_argument("--module", default=MODULE, help="the module of the definitions")
    parser.add_argument("--also", action="append", default=[], help="one more module to import")
    return parser


if __name__ == "__main__":
    main()
