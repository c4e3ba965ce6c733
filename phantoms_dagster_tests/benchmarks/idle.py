"""*idle*: what `phantoms up` costs while nothing happens, and what one command costs.

The stack is started as a person starts it, by the command, in a fresh directory. After it has settled, every process of its tree is
watched for a while: its share of a core, its memory, and how many bytes go into logs, the database's log and Valkey's. Then
`phantoms --help` and `phantoms status` run against it, and for comparison a Python that does nothing. The best of several counts.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values
from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine, text

from phantoms_dagster.settings import RUNNING_FILE
from phantoms_dagster_tests.benchmarks.cpu import processes
from phantoms_dagster_tests.benchmarks.memory import MB, Peak, memory_of
from phantoms_dagster_tests.benchmarks.report import Report

CORE_SHARE, PSS_MB = 0.03, 900
HELP_CPU, STATUS_CPU, READY_SECONDS = 0.4, 0.9, 12.0
START_PATIENCE, STOP_PATIENCE = 180.0, 60.0
_TICKS = os.sysconf("SC_CLK_TCK")
_READY_LINE = "Ctrl-C stops everything"
# What the end of a command line says about a process of ours.
_NAMES = (
    (r"cli\.main up|/phantoms up", "supervisor"),
    (r"cli\.main (\w+)|/phantoms (\w+)", ""),
    (r"execution\.preloaded", "preloaded"),
    (r"execution\.worker", "workers"),
    (r"execution\.daemon", "daemon"),
    (r"dagster api grpc", "code-server"),
    (r"execution\.webserver|dagster_webserver", "webserver"),
    (r"valkey", "valkey"),
    (r"postgres: (?:\S+: )?([a-z ]+)", "postgres "),
    (r"postgres", "postgres"),
)


@dataclass(frozen=True)
class Watched:
    """A process over the time that it was watched. `share` is of one core; memory in bytes, at the end."""

    pid: int
    name: str
    share: float
    memory: Peak


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--settle", type=float, default=45, help="seconds after the start before anything is counted (45)")
    parser.add_argument("--seconds", type=float, default=120, help="how long processes are watched (120)")
    parser.add_argument("--runs", type=int, default=5, help="how often each command runs; the best counts (5)")
    parser.add_argument("--no-up", action="store_true", help="only the two commands, without a running stack")


def run(options: argparse.Namespace) -> Report:
    """Start, settle, watch, measure the commands, stop."""
    report = Report("idle", {"settle": f"{options.settle:g} s", "watched": f"{options.seconds:g} s"})
    with tempfile.TemporaryDirectory(prefix="phantoms-idle-") as folder:
        home = Path(folder) / "home"
        if options.no_up:
            _commands(report, home, options.runs)
            return report
        with _up(home) as (up, ready):
            report.check("up until ready (s)", round(ready, 1), f"under {READY_SECONDS:g}", ok=ready < READY_SECONDS)
            time.sleep(options.settle)
            _watch(report, up, home, options.seconds)
            _commands(report, home, options.runs)
    return report


@contextlib.contextmanager
def _up(home: Path) -> Iterator[tuple[subprocess.Popen[str], float]]:
    """A running `phantoms up`, and the seconds until it reported that it runs."""
    environment = {
        **_environment(home),
        "PHANTOMS_WEB_PORT": "0",
        "PHANTOMS_METRICS_PORT": "0",
        "PHANTOMS_DESK_PORT": "0",
        "PYTHONUNBUFFERED": "1",
    }
    begun = time.monotonic()
    up = subprocess.Popen(
        [*_PROGRAM, "up"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    try:
        assert up.stdout is not None
        for line in up.stdout:
            if _READY_LINE in line:
                break
        else:
            raise RuntimeError(f"`phantoms up` ended with {up.wait()}; see {home / 'logs'}")
        yield up, time.monotonic() - begun
    finally:
        up.send_signal(signal.SIGINT)
        try:
            up.wait(STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            up.kill()


def _watch(report: Report, up: subprocess.Popen[str], home: Path, seconds: float) -> None:
    running = {name: value or "" for name, value in dotenv_values(home / RUNNING_FILE).items()}
    written, begun, before = _written(home, running), time.monotonic(), _cpu(_tree(up.pid))
    time.sleep(seconds)
    passed, after = time.monotonic() - begun, _cpu(_tree(up.pid))
    hours = passed / 3_600
    grown = {name: value - written[name] for name, value in _written(home, running).items()}
    found = []
    for pid, used in after.items():
        with contextlib.suppress(OSError):  # it has ended since
            found.append(Watched(pid, _name(pid), (used - before.get(pid, 0.0)) / passed, memory_of(pid)))
    _print(found)
    share, pss = sum(one.share for one in found), sum(one.memory.pss for one in found) / MB
    report.check("idle, share of a core", round(share, 4), f"under {CORE_SHARE}", ok=share < CORE_SHARE)
    report.check("memory in all, PSS (MB)", round(pss), f"under {PSS_MB}", ok=pss < PSS_MB)
    report.tell("processes", len(found))
    for name in sorted({one.name for one in found}):
        same = [one for one in found if one.name == name]
        report.tell(
            f"  {name}" + (f" ({len(same)})" if len(same) > 1 else ""),
            f"{sum(one.share for one in same):.2%} of a core, {sum(one.memory.pss for one in same) / MB:.0f} MB PSS",
        )
    for name, value in grown.items():
        hourly = value / hours
        report.tell(f"{name} an hour", round(hourly) if name == "sensor ticks" else f"{hourly / MB:.1f} MB")


def _written(home: Path, running: Mapping[str, str]) -> dict[str, float]:
    """Return the bytes written so far, and the number of ticks."""
    found = {"logs": float(sum(file.stat().st_size for file in (home / "logs").rglob("*") if file.is_file()))}
    engine = create_engine(running["PHANTOMS_DAGSTER_DATABASE_URL"])
    try:
        with engine.connect() as connection:
            found["database log (WAL)"] = float(connection.execute(text("SELECT pg_current_wal_lsn() - '0/0'")).scalar_one())
            # Ticks that found nothing are deleted after a while; their numbers are not given twice.
            found["sensor ticks"] = float(connection.execute(text("SELECT coalesce(max(id), 0) FROM job_ticks")).scalar_one())
    finally:
        engine.dispose()
    found["Valkey's files"] = float(sum(f.stat().st_size for f in home.rglob("appendonlydir/*") if f.is_file()))
    return found


def _commands(report: Report, home: Path, runs: int) -> None:
    environment = _environment(home)
    nothing = _best([sys.executable, "-c", "pass"], environment, runs)
    report.tell("python -c pass (CPU-s)", round(nothing, 3))
    spent = _best([*_PROGRAM, "--help"], environment, runs)
    report.check("phantoms --help (CPU-s)", round(spent, 3), f"under {HELP_CPU}", ok=spent < HELP_CPU)
    if (home / RUNNING_FILE).exists():
        spent = _best([*_PROGRAM, "status"], environment, runs)
        report.check("phantoms status (CPU-s)", round(spent, 3), f"under {STATUS_CPU}", ok=spent < STATUS_CPU)


_PROGRAM = (sys.executable, str(Path(sys.executable).with_name("phantoms")))


def _best(command: Sequence[str], environment: Mapping[str, str], runs: int) -> float:
    """Return the least CPU-seconds that the command took. An extra run before compiles the modules."""
    spent = []
    for _ in range(runs + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, env=dict(environment), check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent[1:])


def _environment(home: Path) -> dict[str, str]:
    """The environment of a person who has set nothing: none of our settings, and Python may keep its bytecode."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PHANTOMS_", "DAGSTER_"))}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, "PHANTOMS_HOME": str(home)}


def _tree(root: int) -> list[int]:
    """The process and everything below it."""
    children, found = processes(), [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _cpu(pids: Sequence[int]) -> dict[int, float]:
    """CPU-seconds of each process by itself, with the children that it has reaped."""
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rsplit(")", 1)[1].split()
            found[pid] = sum(int(field) for field in fields[11:15]) / _TICKS
    return found


def _name(pid: int) -> str:
    line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    for pattern, name in _NAMES:
        if match := re.search(pattern, line):
            return (name + next((part for part in match.groups() if part), "")).strip()
    return line[:60] or str(pid)


def _print(found: Sequence[Watched]) -> None:
    table = Table(box=None, header_style="bold")
    for heading in ("pid", "share of a core", "PSS MB", "private MB", "peak RSS MB"):
        table.add_column(heading, justify="right")
    table.add_column("what it is")
    for one in sorted(found, key=lambda watched: -watched.memory.pss):
        sizes = (one.memory.pss, one.memory.private, one.memory.rss)
        table.add_row(str(one.pid), f"{one.share:.2%}", *(f"{size / MB:.1f}" for size in sizes), one.name)
    Console(stderr=True, width=132).print(table)
