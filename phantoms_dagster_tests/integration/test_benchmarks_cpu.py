"""The benchmarks' CPU figures, with real processes that use some."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from phantoms_dagster_tests.benchmarks.cpu import CpuMeter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"
THEN_WAIT = "print('burnt', flush=True)\ntime.sleep(60)\n"
# The kernel counts in ticks of 10 ms, user and system time each, and rounds down.
TICKS = 0.05


def service(code: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-I", "-S", "-c", code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def burnt(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "burnt\n"


def end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    assert process.stdout is not None
    process.stdout.close()


def parent_of_one_that_burns(seconds: float, then: str) -> str:
    child = BURN.format(seconds=seconds)
    return f"import subprocess, sys, time\nc = subprocess.Popen([sys.executable, '-I', '-S', '-c', {child!r}])\n{then}" + THEN_WAIT


def test_what_a_child_used_stays_counted_when_it_has_ended() -> None:
    process = service(parent_of_one_that_burns(0.3, "c.wait()\n"))
    try:
        burnt(process)
        assert CpuMeter(lambda: {"service": process.pid}).read()["service"] >= 0.3 - TICKS
    finally:
        end(process)


def test_what_a_living_child_has_used_so_far_counts() -> None:
    process = service(parent_of_one_that_burns(30, ""))
    meter = CpuMeter(lambda: {"service": process.pid})
    try:
        burnt(process)
        first = meter.read()["service"]
        reached(lambda: meter.read()["service"] > first + 0.2)
    finally:
        end(process)


def test_a_service_that_was_killed_and_started_again_goes_on_from_where_it_was() -> None:
    pids: dict[str, int] = {}
    meter = CpuMeter(lambda: pids)
    process = service(BURN.format(seconds=0.3) + THEN_WAIT)
    try:
        burnt(process)
        pids["service"] = process.pid
        first = meter.read()["service"]
        end(process)
        del pids["service"]
        assert meter.read()["service"] == first >= 0.3 - TICKS
        process = service(BURN.format(seconds=0.2) + THEN_WAIT)
        burnt(process)
        pids["service"] = process.pid
        assert meter.read()["service"] >= first + 0.2 - TICKS
    finally:
        end(process)


def reached(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
