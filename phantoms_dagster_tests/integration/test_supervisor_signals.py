"""What signals do to a program that runs a supervisor, in the foreground and in a shell's background."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phantoms_dagster.embedded.supervisor import interrupt_on_signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

MAX_WAIT = 120.0
# Prints the pids once all run, and how it ended. A deaf process notes its stop signal and goes on.
PROGRAM = """
import sys
from pathlib import Path
from phantoms_dagster.embedded.supervisor import ProcessSpec, Supervisor

logs, deaf = Path(sys.argv[1]), sys.argv[2] == "deaf"
code = "import signal, time\\n"
if deaf:
    code += "signal.signal(signal.SIGTERM, lambda *_: print('asked', flush=True))\\n"
# A signal that arrives just before `signal.pause` blocks would not end it.
code += "print('set', flush=True)\\nwhile True: time.sleep(0.05)"

def spec(name):
    log = logs / f"{name}.log"
    argv = (sys.executable, "-I", "-S", "-c", code)
    return ProcessSpec(name=name, argv=argv, ready=lambda: "set" in log.read_text(), grace_seconds=600)

class Announcing(Supervisor):
    def start(self):
        super().start()
        print(*self.pids.values(), flush=True)

supervisor = Announcing([spec("one"), spec("two")], logs=logs)
try:
    supervisor.run()
    print("stopped", supervisor.pids, flush=True)
except KeyboardInterrupt:
    print("killed", supervisor.pids, flush=True)
"""

Program = tuple[subprocess.Popen[str], list[int]]
Run = Callable[..., Program]
Gone = Callable[[int], bool]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Starts the program above and waits until its processes run; gives it and their pids."""
    running: list[subprocess.Popen[str]] = []

    def start(how: str = "polite", *, prefix: tuple[str, ...] = ()) -> Program:
        program = subprocess.Popen([*prefix, sys.executable, "-c", PROGRAM, str(tmp_path), how], stdout=subprocess.PIPE, text=True)
        running.append(program)
        assert program.stdout is not None
        return program, [int(pid) for pid in program.stdout.readline().split()]

    yield start
    for program in running:
        program.kill()
        program.communicate()


def last_words(program: subprocess.Popen[str]) -> str:
    return program.communicate(timeout=MAX_WAIT)[0].strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_stops_everything_cleanly(run: Run, gone: Gone, number: signal.Signals) -> None:
    program, pids = run()
    assert len(pids) == 2
    program.send_signal(number)
    assert last_words(program) == "stopped {}"
    assert program.returncode == 0
    assert all(gone(pid) for pid in pids)


def test_ctrl_c_is_heard_by_a_program_that_a_shell_started_in_the_background(run: Run) -> None:
    """`phantoms up &` in a script starts with SIGINT ignored, and Python then leaves it ignored."""
    program, _ = run(prefix=("/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh"))
    program.send_signal(signal.SIGINT)
    assert last_words(program) == "stopped {}"


def test_a_second_ctrl_c_kills_at_once(run: Run, tmp_path: Path, gone: Gone) -> None:
    program, pids = run("deaf")
    program.send_signal(signal.SIGINT)
    # The first one must have been taken, not merged with the second: it has told the last process to stop.
    while "asked" not in (tmp_path / "two.log").read_text():
        time.sleep(0.01)
    program.send_signal(signal.SIGINT)
    assert last_words(program) == "killed {}"
    assert all(gone(pid) for pid in pids)


def test_only_ctrl_c_interrupts_a_stop_that_is_under_way() -> None:
    """A closing terminal sends SIGHUP and SIGTERM one after the other; the second must not cut the clean stop short."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with interrupt_on_signals():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG")
def test_the_processes_of_a_killed_program_end_with_it(run: Run, gone: Gone) -> None:
    program, pids = run()
    program.kill()
    program.wait()
    assert all(gone(pid) for pid in pids)
