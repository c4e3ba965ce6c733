"""Simulated hosts: each has its own network, host name and process table, on one virtual switch. Needs Linux and root.

The calling process becomes the server. It moves into a separate network namespace that contains the switch, so the machine's real
network stays untouched. A host is a process that holds its namespaces, and everything in it dies with that process. The host itself
dies with the benchmark, however that ends. Namespaces have no names, so none can be left behind. `network_world` runs the programs
on the hosts.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from phantoms_dagster.embedded.processes import ProcessSpec
from phantoms_dagster.embedded.supervisor import Supervisor
from phantoms_dagster_tests.benchmarks.memory import children_of

NETWORK = "10.77.0.0/24"
SERVER = "10.77.0.1"
_SWITCH = "switch0"
_PROGRAMS = {"ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux"}
_CLONE_NEWNET = 0x40000000
# The first process of a host: it reaps whatever loses its parent there, and does nothing else.
_INIT = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True: signal.pause()"
_SETTLE_SECONDS = 5.0


def obstacles() -> list[str]:
    """Return the reasons why hosts cannot be simulated here, each with a remedy."""
    if sys.platform != "linux":
        return ["network namespaces are a thing of Linux: run it there"]
    found = [f"the program `{name}` is missing: install {package}" for name, package in _PROGRAMS.items() if not shutil.which(name)]
    if os.geteuid() != 0:
        found.append("only root may make network namespaces: run it as root")
    elif shutil.which("unshare") and (refused := _refused("--net", "--uts", "--mount", "--pid", "--fork")):
        found.append(f"this system makes no namespaces, even for root ({refused}): run it outside of the container")
    return found


def _refused(*flags: str) -> str:
    tried = subprocess.run(["unshare", *flags, "true"], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else tried.stderr.strip() or f"exit code {tried.returncode}"


@dataclass
class Host:
    """A host. Use `Network.host`."""

    name: str
    address: str
    logs: Path
    _holder: Supervisor
    _init: int
    _running: dict[str, Supervisor] = field(default_factory=dict)

    def run(self, name: str, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start a program on this host. It is not started again when it ends; `logs` has what it says."""
        spec = ProcessSpec(
            name=name,
            argv=(*self._inside(), *argv),
            env=environment,
            restart=False,
            # What it started ends with its host: `nsenter` itself only waits.
            stop_signal=signal.SIGKILL,
        )
        supervisor = Supervisor([spec], logs=self.logs)
        self._running[name] = supervisor
        supervisor.start()

    def pid(self, name: str) -> int:
        """The process that `run` started under that name, as it is numbered outside of the host."""
        # The supervisor knows `nsenter`, which has put it there.
        return children_of(self._running[name].pids[name])[0]

    def command(self, *argv: str) -> str:
        """Run a short command on this host. Return its output."""
        return _run(*self._inside(), *argv)

    def cut_off(self) -> None:
        """Disconnect its cable: nothing gets through, and neither side notices."""
        _run("ip", "link", "set", self._port, "down")

    def reconnect(self) -> None:
        """Connect its cable again."""
        _run("ip", "link", "set", self._port, "up")

    def power_off(self) -> None:
        """End everything on it at once, without closing any connection."""
        self.cut_off()
        os.kill(self._init, signal.SIGKILL)

    @property
    def _port(self) -> str:
        return f"port-{self.name}"

    def _inside(self) -> tuple[str, ...]:
        return ("nsenter", "--target", str(self._init), "--net", "--uts", "--pid", "--mount", f"--wd={Path.cwd()}", "--")

    def _stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._init, signal.SIGKILL)
        for supervisor in [*self._running.values(), self._holder]:
            supervisor.stop()


class Network:
    """The switch and its hosts. This process is on it with the address `SERVER`. Use `open_network`."""

    def __init__(self, logs: Path, exits: contextlib.ExitStack) -> None:
        self._logs = logs
        self._exits = exits
        self._hosts = 0

    def host(self, name: str) -> Host:
        """Add a host of that name to the network."""
        argv = ("unshare", "--net", "--uts", "--mount-proc", "--pid", "--fork", "--kill-child", sys.executable, "-c", _INIT)
        spec = ProcessSpec(name=f"{name}-init", argv=argv, restart=False, stop_signal=signal.SIGKILL)
        holder = Supervisor([spec], logs=self._logs)
        self._exits.callback(holder.stop)
        holder.start()
        init = _first_child(holder.pids[spec.name])
        self._hosts += 1
        host = Host(name, f"10.77.0.{self._hosts + 1}", self._logs, holder, init)
        self._exits.callback(host._stop)
        _run("ip", "link", "add", host._port, "type", "veth", "peer", "name", "eth0", "netns", str(init))
        _run("ip", "link", "set", host._port, "master", _SWITCH, "up")
        host.command("sh", "-c", f"echo {name} > /proc/sys/kernel/hostname")
        host.command("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            host.command("ip", "link", "set", device, "up")
        return host


@contextlib.contextmanager
def open_network(logs: Path) -> Iterator[Network]:
    """Move this process, and what it starts from now on, into a network of its own. Threads that run already stay outside.

    It cannot go back. Raises OSError when the kernel refuses.
    """
    logs.mkdir(parents=True, exist_ok=True)
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", _SWITCH, "type", "bridge")
    _run("ip", "address", "add", f"{SERVER}/24", "dev", _SWITCH)
    _run("ip", "link", "set", _SWITCH, "up")
    with contextlib.ExitStack() as exits:
        yield Network(logs, exits)


def _first_child(pid: int) -> int:
    """Return the process that `unshare` forked, once it executes its program."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < deadline:
        for child in children_of(pid):
            # Before it is the program, its own /proc is not there yet.
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/cmdline").read_bytes().startswith(sys.executable.encode()):
                    return child
        time.sleep(0.02)
    raise TimeoutError("a host's first process did not start")


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout
