"""The supervisor with real processes: order, readiness, crashes, stopping."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phantoms_dagster.embedded.supervisor import ProcessFailed, ProcessSpec, Supervisor

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs process groups")

SLEEP = "import signal; signal.pause()"
MAX_WAIT = 120.0


def spec(name: str, code: str, **options: object) -> ProcessSpec:
    return ProcessSpec(name=name, argv=(sys.executable, "-I", "-S", "-c", code), **options)  # type: ignore[arg-type]


Started = Callable[..., Supervisor]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + MAX_WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Started]:
    """Makes a supervisor whose processes log below `tmp_path` and are stopped after the test."""
    made: list[Supervisor] = []

    def make(*specs: ProcessSpec, **options: object) -> Supervisor:
        made.append(Supervisor(specs, logs=tmp_path, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for supervisor in made:
        supervisor.stop()


def test_a_process_starts_when_the_one_before_is_ready_and_they_stop_in_reverse(supervise: Started, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    code = (
        "import signal, sys, time\n"
        f"def note(what):\n    with open({str(diary)!r}, 'a') as f: f.write(what + '\\n')\n"
        "def end(*_): note('stop ' + NAME); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); note('start ' + NAME)\n"
        "while True: time.sleep(0.05)"  # a signal that arrives just before `signal.pause` blocks would not end it
    )

    def noted(line: str) -> Callable[[], bool]:
        return lambda: diary.exists() and line in diary.read_text()

    names = ("first", "second", "third")
    supervisor = supervise(*(spec(n, f"NAME={n!r}\n{code}", ready=noted(f"start {n}")) for n in names))
    supervisor.start()
    assert set(supervisor.pids) == set(names)
    supervisor.stop()
    assert diary.read_text().split("\n")[:-1] == [*(f"start {n}" for n in names), *(f"stop {n}" for n in reversed(names))]
    assert supervisor.pids == {}


def test_a_process_that_dies_while_it_starts_is_reported_with_the_end_of_its_log(supervise: Started, tmp_path: Path) -> None:
    (tmp_path / "broken.log").write_text("an error of yesterday\n")
    supervisor = supervise(
        spec("fine", SLEEP),
        spec("broken", "import sys; sys.exit('no such port: banana')", ready=lambda: False),
        spec("later", SLEEP),
    )
    with pytest.raises(ProcessFailed, match=r"broken stopped during its start \(exit code 1\)") as failure:
        supervisor.start()
    assert "no such port: banana" in str(failure.value)
    assert "yesterday" not in str(failure.value)
    assert supervisor.pids == {}
    assert not (tmp_path / "later.log").exists()


def test_people_see_the_title_of_a_process_and_its_log_keeps_its_name(supervise: Started, tmp_path: Path) -> None:
    code = "import sys; sys.exit('no such port: banana')"
    supervisor = supervise(spec("preloaded", code, ready=lambda: False, title="program code"))
    with pytest.raises(ProcessFailed, match=r"^program code stopped during its start") as failure:
        supervisor.start()
    assert f"The end of {tmp_path / 'preloaded.log'}" in str(failure.value)


def test_a_program_that_does_not_exist_is_reported_by_name(supervise: Started) -> None:
    supervisor = supervise(ProcessSpec(name="ghost", argv=("/no/such/program",), ready=lambda: False))
    with pytest.raises(ProcessFailed, match="cannot execute /no/such/program"):
        supervisor.start()


def test_a_process_that_is_never_ready_fails_and_is_stopped(supervise: Started) -> None:
    supervisor = supervise(spec("slow", SLEEP, ready=lambda: False, ready_timeout=0.1))
    with pytest.raises(ProcessFailed, match=r"slow was not ready after 0\.1 s"):
        supervisor.start()
    assert supervisor.pids == {}


def test_an_error_of_a_readiness_check_reaches_the_caller_and_nothing_is_left_running(supervise: Started) -> None:
    def broken() -> bool:
        raise ZeroDivisionError

    supervisor = supervise(spec("asked", SLEEP, ready=broken))
    with pytest.raises(ZeroDivisionError):
        supervisor.start()
    assert supervisor.pids == {}


def test_a_crashed_process_is_started_again_later_each_time_and_that_is_said(supervise: Started) -> None:
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    supervisor = supervise(spec("fragile", "raise SystemExit(7)"), notify=said.put, backoff=(0.01, 0.04))
    supervisor.start()
    messages = [said.get(timeout=MAX_WAIT) for _ in range(5)]
    assert all(m.startswith("fragile has stopped (exit code 7) and restarts in ") for m in messages)
    assert [m.split(" restarts in ")[1].split(" s.")[0] for m in messages] == ["0.01", "0.02", "0.04", "0.04", "0.04"]


def test_a_process_that_ran_well_for_a_while_is_started_again_as_soon_as_at_first(supervise: Started) -> None:
    """Each of them being killed every half minute, code server and daemon were away for half a minute each time."""
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    code = "import time; time.sleep(0.3); raise SystemExit(7)"
    supervisor = supervise(spec("killed", code), notify=said.put, backoff=(0.01, 0.04), steady_seconds=0.2)
    supervisor.start()
    messages = [said.get(timeout=MAX_WAIT) for _ in range(3)]
    assert [m.split(" restarts in ")[1].split(" s.")[0] for m in messages] == ["0.01", "0.01", "0.01"]


def test_a_killed_process_comes_back_with_a_new_pid(supervise: Started) -> None:
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    ready = threading.Event()
    supervisor = supervise(spec("victim", SLEEP), spec("bystander", SLEEP), notify=said.put, backoff=(0.01, 0.01))
    supervisor.start()
    before = supervisor.pids
    os.kill(before["victim"], signal.SIGKILL)
    assert "(SIGKILL)" in said.get(timeout=MAX_WAIT)
    while supervisor.pids.get("victim") in (None, before["victim"]):
        ready.wait(0.01)
    assert supervisor.pids["bystander"] == before["bystander"]


def test_a_process_that_vanishes_a_moment_before_its_end_is_known_is_still_started_again(supervise: Started) -> None:
    """The supervision ended in that moment: nothing ran, nothing was due, and nothing was in the inbox."""

    class Gone:
        pid = 0
        returncode = 3

        def wait(self) -> int:
            time.sleep(0.2)
            return 3

    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    supervisor = supervise(spec("gone", SLEEP, launch=lambda *_: Gone()), notify=said.put, backoff=(0.01, 0.02))
    supervisor.start()
    for _ in range(2):
        assert said.get(timeout=MAX_WAIT).startswith("gone has stopped (exit code 3) and restarts")


def test_a_notification_that_cannot_be_written_does_not_end_the_supervision(supervise: Started) -> None:
    tries: queue.SimpleQueue[str] = queue.SimpleQueue()

    def gone(message: str) -> None:
        tries.put(message)
        raise OSError("the terminal is gone")

    supervisor = supervise(spec("fragile", "raise SystemExit(7)"), notify=gone, backoff=(0.01, 0.01))
    supervisor.start()
    for _ in range(3):
        tries.get(timeout=MAX_WAIT)


def test_a_process_that_may_end_is_not_started_again(supervise: Started) -> None:
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    supervisor = supervise(spec("task", "pass", restart=False), notify=said.put, backoff=(0.0, 0.0))
    supervisor.start()
    assert said.get(timeout=MAX_WAIT) == "task has ended (exit code 0)."
    supervisor.stop()
    assert said.empty()
    assert supervisor.pids == {}


def test_a_process_that_ignores_the_stop_signal_is_killed_with_all_it_started(
    supervise: Started, tmp_path: Path, gone: Callable[[int], bool]
) -> None:
    child_file = tmp_path / "child"
    code = (
        "import signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import signal; signal.pause()'])\n"
        f"open({str(child_file)!r}, 'w').write(f'{{child.pid}}.')\n"
        "while True: signal.pause()"
    )
    supervisor = supervise(
        spec("deaf", code, ready=lambda: child_file.exists() and child_file.read_text().endswith("."), grace_seconds=0.05)
    )
    supervisor.start()
    leader, child = supervisor.pids["deaf"], int(child_file.read_text().strip("."))
    supervisor.stop()
    assert gone(leader)
    assert gone(child)


def test_what_a_crashed_process_had_started_does_not_stay(supervise: Started, tmp_path: Path, gone: Callable[[int], bool]) -> None:
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    child_file = tmp_path / "child"
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import signal; signal.pause()'])\n"
        f"open({str(child_file)!r}, 'w').write(str(child.pid)); child.returncode = 0; sys.exit(3)"
    )
    supervisor = supervise(spec("messy", code, restart=False), spec("other", SLEEP), notify=said.put)
    supervisor.start()
    assert said.get(timeout=MAX_WAIT) == "messy has ended (exit code 3)."
    assert gone(int(child_file.read_text()))


def test_a_supervisor_is_for_one_use(supervise: Started) -> None:
    supervisor = supervise(spec("once", SLEEP))
    supervisor.start()
    with pytest.raises(RuntimeError):
        supervisor.start()


def test_a_log_that_has_grown_too_long_is_put_aside_at_the_next_start(
    supervise: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phantoms_dagster.embedded.processes.LOG_LIMIT_BYTES", 10)
    (tmp_path / "chatty.log").write_text("much too long already")
    supervisor = supervise(spec("chatty", SLEEP))
    supervisor.start()
    assert (tmp_path / "chatty.log.1").read_text() == "much too long already"
    assert (tmp_path / "chatty.log").read_text() == ""


def test_the_log_of_a_process_that_runs_is_put_aside_and_the_process_goes_on_in_a_new_one(
    supervise: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon's log grew by 18 MB a day for as long as `phantoms up` ran."""
    monkeypatch.setattr("phantoms_dagster.embedded.processes.LOG_LIMIT_BYTES", 1_000)
    monkeypatch.setattr("phantoms_dagster.embedded.supervisor.LOGS_SECONDS", 0.05)
    go = tmp_path / "go"
    code = f"import os, time\nprint('x' * 2_000, flush=True)\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
    supervisor = supervise(spec("chatty", code + "print('after', flush=True)\n" + SLEEP))
    supervisor.start()
    log = tmp_path / "chatty.log"
    until(lambda: (tmp_path / "chatty.log.1").exists() and log.stat().st_size == 0)
    assert (tmp_path / "chatty.log.1").read_text() == "x" * 2_000 + "\n"
    go.touch()
    until(lambda: log.read_text() == "after\n")  # not behind 2,000 zeros


def test_processes_that_start_together_do_not_wait_for_one_another_and_say_when_they_are_ready(
    supervise: Started, tmp_path: Path
) -> None:
    """`phantoms up` took as long as all its services one after another, and was silent meanwhile."""
    last, told = tmp_path / "last", []
    supervisor = supervise(
        spec("first", SLEEP, ready=last.exists),
        spec("later", SLEEP, when=last.exists),
        spec("second", f"open({str(last)!r}, 'w')\n" + SLEEP, ready=last.exists),
        together=True,
        ready=lambda name, seconds, waiting: told.append((name, seconds, list(waiting))),
    )
    supervisor.begin()
    supervisor.wait()
    assert {name for name, _, _ in told} == {"first", "second", "later"}
    assert told[0][2]
    assert told[-1][2] == []
    assert set(supervisor.pids) == {"first", "second", "later"}


def test_of_processes_that_start_together_one_that_dies_ends_all(supervise: Started) -> None:
    supervisor = supervise(
        spec("slow", SLEEP, ready=lambda: False), spec("broken", "import sys; sys.exit('no such port: banana')"), together=True
    )
    with pytest.raises(ProcessFailed, match=r"broken stopped during its start \(exit code 1\)"):
        supervisor.start()
    assert supervisor.pids == {}
