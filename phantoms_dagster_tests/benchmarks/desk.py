"""*desk*: every page of the desk with 100,000 videos and a million attempts in PostgreSQL, at 20 requests a second in all.

One process of the desk (`phantoms desk`), embedded PostgreSQL and Valkey, and a person who is logged in. Requests are due at fixed
times, in a mixed order, and each time counts from the moment when the request was due, so it includes any wait for another
request. Three browsers have the counts of the menu open (`/events`), as they do all day. Each page is opened twice before anything
is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine

from phantoms_dagster.desk.passwords import hash_password
from phantoms_dagster.embedded.servers import EmbeddedServers, free_port
from phantoms_dagster.store.audit import Actor
from phantoms_dagster.store.engine import engine
from phantoms_dagster.store.migrate import upgrade
from phantoms_dagster.store.users import Users
from phantoms_dagster_tests.benchmarks.cpu import CpuMeter
from phantoms_dagster_tests.benchmarks.desk_pages import Samples, addresses, left_out
from phantoms_dagster_tests.benchmarks.desk_tables import fill
from phantoms_dagster_tests.benchmarks.memory import MB, memory_of
from phantoms_dagster_tests.benchmarks.report import Report, percentile
from phantoms_dagster_tests.benchmarks.world import hurry

TARGET_MS, TARGET_MB = 100, 200
WATCHERS = 3
READY_SECONDS = 60
TOLD = ("videos", "stages", "attempts", "posts", "dead_letters", "audit_log", "metric_snapshots")
NAME, PASSWORD = "kim", "a long enough password"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--videos", type=int, default=100_000, help="videos in the tables; ten times as many attempts (100000)")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second in all (20)")
    parser.add_argument("--rounds", type=int, default=40, help="how often each page is opened (40)")
    parser.add_argument("--only", default="", help="of the pages, those whose name has this in it")
    parser.add_argument("--seed", type=int, default=1, help="fixes the order of the requests (1)")
    parser.add_argument(
        "--keep", type=Path, help="a directory for the tables; filled in the first run, and used again in later ones"
    )


@dataclass
class Seen:
    """The results of the requests: milliseconds by page, and answers that were not a page."""

    took: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    wrong: list[str] = field(default_factory=list)


def run(options: argparse.Namespace) -> Report:
    """Fill, serve, ask."""
    report = Report("desk", {"videos": options.videos, "requests a second": options.rate, "rounds": options.rounds})
    report.notes.append(hurry())
    report.problems += [f"{route} is not measured: give it an address in desk_pages.PAGES" for route in sorted(left_out())]
    with ExitStack() as exits:
        home = options.keep or Path(
            exits.enter_context(tempfile.TemporaryDirectory(prefix="phantoms-bench-", ignore_cleanup_errors=True))
        )
        servers = EmbeddedServers(home, durable=False, notify=report.problems.append)
        urls = exits.enter_context(servers)
        upgrade(urls.database_url)
        database = engine(urls.database_url)
        began = time.perf_counter()
        report.tell("rows", _filled(database, home, options.videos))
        report.tell("filled in s", round(time.perf_counter() - began, 1))
        samples = Samples.of(database)
        database.dispose()
        with _desk(home, urls.database_url, urls.redis_url) as (process, url):
            meter = CpuMeter(lambda: {"desk": process.pid, "postgres": servers.pids["postgres"]})
            with meter:
                seen, cpu = asyncio.run(_ask(url, samples, options, meter))
            rss = memory_of(process.pid).rss / MB
    requests = sum(map(len, seen.took.values()))
    for name, took in seen.took.items():
        p50, p95 = percentile(took, 0.5), percentile(took, 0.95)
        report.check(f"{name}: p50, p95 ms", f"{p50:.0f}, {p95:.0f}", f"p95 < {TARGET_MS}", ok=p95 < TARGET_MS)
    every = [one for took in seen.took.values() for one in took]
    report.tell("all pages: p50, p95, p99 ms", ", ".join(f"{percentile(every, share):.0f}" for share in (0.5, 0.95, 0.99)))
    report.check("RSS of the desk, highest, MB", round(rss), f"< {TARGET_MB}", ok=rss < TARGET_MB)
    report.tell("CPU-ms a request", {name: round(1000 * used / requests, 1) for name, used in cpu.items()})
    report.problems += seen.wrong[:20]
    return report


def _filled(database: Engine, home: Path, videos: int) -> dict[str, int]:
    """Fill the tables unless an earlier run filled those in `home`. Return the number of rows that matter.

    Raises SystemExit for tables of another size.
    """
    done = home / "filled.json"
    if not done.exists():
        counted = fill(database, videos=videos)
        Users(database).add(NAME, "operator", hash_password(PASSWORD), actor=Actor("benchmark", "cli"))
        done.write_text(json.dumps({"asked": videos, "rows": {name: counted[name] for name in TOLD}}))
    found: dict[str, Any] = json.loads(done.read_text())
    if found["asked"] != videos:
        raise SystemExit(f"{home} has tables of {found['asked']} videos: give --videos {found['asked']}, or another directory")
    rows: dict[str, int] = found["rows"]
    return rows


@contextmanager
def _desk(home: Path, database_url: str, redis_url: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the desk in a separate process. Return the process and its address."""
    port = free_port(0)
    ours = {
        "PHANTOMS_HOME": str(home),
        "PHANTOMS_DATABASE_URL": database_url,
        "PHANTOMS_REDIS_URL": redis_url,
        "PHANTOMS_SANDBOX": "on",
    }
    environment = {**{name: value for name, value in os.environ.items() if not name.startswith("PHANTOMS_")}, **ours}
    command = [sys.executable, "-m", "phantoms_dagster.cli.main", "desk", "--port", str(port)]
    with (home / "desk.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, text=True)
    try:
        _wait(f"http://127.0.0.1:{port}/health", process)
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _wait(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            httpx.get(url, trust_env=False).raise_for_status()
        except httpx.HTTPError:
            if process.poll() is not None:
                raise RuntimeError(f"the desk ended with {process.returncode}") from None
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"the desk did not answer within {READY_SECONDS} s")


async def _ask(url: str, samples: Samples, options: argparse.Namespace, meter: CpuMeter) -> tuple[Seen, dict[str, float]]:
    limits = httpx.Limits(max_connections=64)
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30, limits=limits) as client:
        await log_in(client)
        watchers = [asyncio.create_task(_watch(client)) for _ in range(WATCHERS)]
        try:
            for number in range(2):
                await _round(client, _chosen(samples, number, options.only), options.rate, Seen())
            seen, before = Seen(), meter.read()
            chance = random.Random(options.seed)
            wanted = [one for number in range(options.rounds) for one in _mixed(_chosen(samples, number, options.only), chance)]
            await _round(client, wanted, options.rate, seen)
            return seen, {name: used - before[name] for name, used in meter.read().items()}
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)


async def log_in(client: httpx.AsyncClient, name: str = NAME, password: str = PASSWORD) -> None:
    """Log in by the form. Raises AssertionError when the desk does not take it."""
    form = await client.get("/login")
    token = re.search(r'data-csrf="([^"]+)"', form.text)
    assert token is not None, "the log-in page has no token"
    answer = await client.post("/login", data={"_csrf": token[1], "name": name, "password": password, "next": "/audit"})
    assert (answer.status_code, answer.headers.get("location")) == (303, "/audit"), answer.text


def _chosen(samples: Samples, number: int, only: str) -> list[tuple[str, str]]:
    return [(name, address) for name, address in addresses(samples, number).items() if only in name]


def _mixed(wanted: list[tuple[str, str]], chance: random.Random) -> list[tuple[str, str]]:
    return chance.sample(wanted, len(wanted))


async def _round(client: httpx.AsyncClient, wanted: list[tuple[str, str]], rate: float, seen: Seen) -> None:
    """Send each request when it is due, regardless of earlier ones."""
    start = time.perf_counter() + 0.05
    async with asyncio.TaskGroup() as group:
        for place, (name, address) in enumerate(wanted):
            due = start + place / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(_open(client, name, address, due, seen))


async def _open(client: httpx.AsyncClient, name: str, address: str, due: float, seen: Seen) -> None:
    answer = await client.get(address)
    seen.took[name].append((time.perf_counter() - due) * 1000)
    if answer.status_code != (303 if name in ("front", "login") else 200):
        seen.wrong.append(f"{address}: {answer.status_code} {answer.text[:300]}")


async def _watch(client: httpx.AsyncClient) -> None:
    """Listen for changes, as the menu of an open page does."""
    async with client.stream("GET", "/events", timeout=None) as answer:
        async for _ in answer.aiter_lines():
            pass
