"""The parent that has imported everything: what it forks, what the forks share, and what comes back after each kill."""

from __future__ import annotations

import json
import os
import queue
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from phantoms_dagster.embedded.preloaded import NEVER_STARTED, SUPPORTED, Preloaded
from phantoms_dagster.embedded.processes import ProcessSpec
from phantoms_dagster.embedded.supervisor import Supervisor
from phantoms_dagster_tests.benchmarks.memory import memory_of

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="only Linux ties forks to their parent")

MAX_WAIT = 90.0
PROGRAM = "phantoms_dagster_tests.integration.forked_program"
# A fork writes its name over the arguments of the parent, as far as they reach.
PARENT = (sys.executable, "-m", "phantoms_dagster.execution.preloaded", "--also", "phantoms_dagster.execution.slots")


def until(condition: Callable[[], object]) -> object:
    """The first true value of the condition."""
    deadline = time.monotonic() + MAX_WAIT
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@dataclass
class World:
    """A preloaded parent under a supervisor, and the supervisors of what it forks."""

    folder: Path
    preloaded: Preloaded = field(default_factory=Preloaded)
    said: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    supervisors: list[Supervisor] = field(default_factory=list)

    def supervise(self, *specs: ProcessSpec) -> Supervisor:
        """A supervisor that has started them."""
        supervisor = Supervisor(specs, logs=self.folder, notify=self.said.put, backoff=(0.05, 0.1), together=True)
        self.supervisors.append(supervisor)
        supervisor.start()
        return supervisor

    def start(self) -> Supervisor:
        """Start the parent."""
        environment = {**os.environ, "SPT_NOENV": "1", "PHANTOMS_HOME": str(self.folder)}
        launch, ready = self.preloaded.launch_parent, self.preloaded.ready
        self.parent = self.supervise(
            ProcessSpec(name="parent", argv=PARENT, env=environment, launch=launch, ready=ready, ready_timeout=MAX_WAIT)
        )
        return self.parent

    def spec(self, name: str, *arguments: str, **options: object) -> ProcessSpec:
        """A fork that runs the program with these arguments."""
        values = {"when": self.preloaded.ready, "launch": self.preloaded.fork, **options}
        return ProcessSpec(name=name, argv=(sys.executable, "-m", PROGRAM, *arguments), **values)  # type: ignore[arg-type]

    def log(self, name: str) -> str:
        """What it has written."""
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        """Stop everything, the parent last."""
        for supervisor in reversed(self.supervisors):
            supervisor.stop()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One parent for all tests here: it imports for seconds. A test may kill it; it comes back."""
    made = World(tmp_path_factory.mktemp("preloaded"))
    try:
        made.start()
        yield made
    finally:
        made.close()


def test_a_fork_is_what_its_command_says_with_a_log_an_environment_and_a_name_of_its_own(world: World) -> None:
    forked = world.supervise(world.spec("told", "tell", env={"MARK": "mine", "PATH": os.environ["PATH"]}))
    told = json.loads(str(until(lambda: world.log("told"))))
    assert told["argv"] == ["tell"]
    assert told["name"] == "__main__"
    assert told["pid"] == told["session"] == forked.pids["told"]
    assert told["parent"] == world.parent.pids["parent"]
    assert (told["marked"], told["home"]) == ("mine", None)
    assert told["input"] == os.devnull
    assert told["command"] == f"{sys.executable} -m {PROGRAM} tell"
    assert (told["threads"], told["mask"]) == (1, [])
    assert told["dagster"]
    marks = Path(f"/proc/{told['pid']}/environ").read_bytes().split(b"\0")
    assert f"PHANTOMS_HOME={world.folder}".encode() in marks  # by which a power cut finds all processes of a stack


def test_where_processes_are_forked_there_is_no_thread_and_no_connection(world: World) -> None:
    """A fork has one thread. Locks of the other threads would be held forever, and two processes would use one connection."""
    process = Path(f"/proc/{world.parent.pids['parent']}")
    assert len(list((process / "task").iterdir())) == 1
    kinds = {int(file.name): stat.S_IFMT(file.stat().st_mode) for file in (process / "fd").iterdir()}
    assert [number for number, kind in kinds.items() if kind == stat.S_IFSOCK] == [0]  # its channel


def test_forks_share_the_memory_of_what_was_imported(world: World) -> None:
    forked = world.supervise(world.spec("asleep", "sleep"))
    taken = memory_of(forked.pids["asleep"])
    assert taken.rss > 100_000_000
    assert taken.private < taken.rss * 0.1


def test_a_killed_fork_is_forked_again(world: World) -> None:
    forked = world.supervise(world.spec("victim", "sleep"))
    before, parent = forked.pids["victim"], world.parent.pids["parent"]
    os.kill(before, signal.SIGKILL)
    assert "victim has stopped (SIGKILL)" in world.said.get(timeout=MAX_WAIT)
    again = until(lambda: forked.pids.get("victim") if forked.pids.get("victim") != before else None)
    assert _parent_of(int(str(again))) == world.parent.pids["parent"] == parent


def test_exit_codes_words_and_tracebacks_arrive_as_those_of_a_process_of_its_own(world: World) -> None:
    ends = {"seven": ("end", "7"), "words": ("say", "no such port"), "broken": ("nonsense",)}
    for name, arguments in ends.items():
        world.supervise(world.spec(name, *arguments, restart=False))
    said = sorted(world.said.get(timeout=MAX_WAIT) for _ in ends)
    assert said == [
        "broken has ended (exit code 1).",
        "seven has ended (exit code 7).",
        "words has ended (exit code 1).",
    ]
    assert world.log("words") == "no such port\n"
    assert world.log("broken").rstrip().endswith("SystemError: an unexpected thing")


def test_a_fork_that_gets_the_stop_signal_cleans_up(world: World) -> None:
    tidied = world.folder / "tidied"
    forked = world.supervise(world.spec("tidy", "tidy", str(tidied), ready=lambda: "ready" in world.log("tidy")))
    forked.stop()
    assert tidied.read_text() == "tidied"
    assert forked.pids == {}


def test_forks_end_with_their_parent_and_all_come_back(world: World, gone: Callable[[int], bool]) -> None:
    forked = world.supervise(world.spec("first", "sleep"), world.spec("second", "sleep"))
    before, parent = forked.pids, world.parent.pids["parent"]
    os.kill(parent, signal.SIGKILL)
    for pid in before.values():
        until(partial(gone, pid))
    after = until(lambda: forked.pids if len(forked.pids) == 2 and not set(forked.pids.values()) & set(before.values()) else None)
    assert isinstance(after, dict)
    assert {_parent_of(pid) for pid in after.values()} == {world.parent.pids["parent"]}
    assert world.parent.pids["parent"] != parent


def test_forks_end_with_the_launcher_of_their_parent(tmp_path: Path, gone: Callable[[int], bool]) -> None:
    code = (
        "import pathlib, signal, sys\n"
        "from phantoms_dagster_tests.integration.test_preloaded import World\n"
        f"world = World(pathlib.Path({str(tmp_path)!r})); parent = world.start()\n"
        "forked = world.supervise(world.spec('asleep', 'sleep'))\n"
        "print(parent.pids['parent'], forked.pids['asleep'], flush=True); signal.pause()"
    )
    launcher = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert launcher.stdout is not None
        pids = [int(word) for word in launcher.stdout.readline().split()]
        assert len(pids) == 2
    finally:
        launcher.kill()
        launcher.communicate()
    for pid in pids:
        until(partial(gone, pid))


def test_a_fork_requested_without_a_parent_has_ended_at_once(tmp_path: Path) -> None:
    """It is tried again as any process that ends."""
    process = Preloaded().fork(ProcessSpec(name="early", argv=(sys.executable, "-m", PROGRAM, "sleep")), 1)
    assert (process.pid, process.wait(), process.returncode) == (0, NEVER_STARTED, NEVER_STARTED)


def _parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
