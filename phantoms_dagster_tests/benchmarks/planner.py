"""*planner*: a look of both sensors that request runs (`defs.sensors.tick`) with 10,000 and 100,000 videos in the table and in
Dagster.

Real PostgreSQL, a real Dagster instance on it with as many partitions. Three tables: `idle`, where all videos are posted; `flood`,
where all wait for their script; `mixed`, where they are in all stages, in scattered places, some with a publish time. CPU-ms are
those of this process, which are the code server's; PostgreSQL's are in the time.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster._core.instance.ref import InstanceRef
from sqlalchemy import text

from phantoms_dagster.defs.partitions import VIDEOS
from phantoms_dagster.defs.sensors import tick
from phantoms_dagster.domain.stages import CHAINS, STAGES
from phantoms_dagster.execution.home import prepare
from phantoms_dagster.execution.storage import PooledPostgresStorage
from phantoms_dagster_tests.benchmarks.report import Report, percentile
from phantoms_dagster_tests.benchmarks.world import Bench, open_bench

TARGETS_MS = {10_000: 100, 100_000: 500}
TABLES = ("idle", "flood", "mixed")
KEY = "20261122-a-fact-about-the-sea-{:06d}"

ADD_VIDEOS = text(
    """
    INSERT INTO phantoms.videos
        (key, channel, title, brief, platforms, publish_at, priority, source, fingerprint, registered_at, place)
    SELECT :prefix || lpad(n::text, 6, '0'), :channel, 'A fact', '{}', ARRAY['youtube', 'tiktok', 'instagram'],
        CASE WHEN :dated AND n % 7 = 0 THEN clock_timestamp() + make_interval(mins => n % 5000) END, (n % 10)::smallint,
        'benchmark', n::text, clock_timestamp(), n
    FROM generate_series(1, :count) n
    """
)
ADD_STAGES = text(
    """
    INSERT INTO phantoms.stages (video_id, stage, state, ready_at)
    SELECT v.id, s.name,
        CASE WHEN :table = 'idle' THEN 'done'
            WHEN :table = 'flood' THEN CASE WHEN s.number = 1 THEN 'ready' ELSE 'blocked' END
            WHEN s.number < v.place / 10 % :stages + 1 THEN 'done'
            WHEN s.number = v.place / 10 % :stages + 1 THEN CASE WHEN v.place % 100 = 0 THEN 'done' ELSE 'ready' END
            ELSE 'blocked' END,
        clock_timestamp()
    FROM phantoms.videos v CROSS JOIN unnest(CAST(:names AS text[])) WITH ORDINALITY AS s(name, number)
    """
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--videos", type=int, nargs="*", default=list(TARGETS_MS), help="sizes of the table (10000 100000)")
    parser.add_argument("--ticks", type=int, default=15, help="looks at each table (15)")


def run(options: argparse.Namespace) -> Report:
    """For each size and table: fill it, look, and empty it."""
    report = Report("planner", {"videos": options.videos, "ticks": options.ticks})
    report.notes.append("ms of a whole look: new partitions, open runs, what is due, ranges, both ends checked with Dagster")
    with open_bench(settings={"PHANTOMS_BATCH_SIZE": "50", "PHANTOMS_RUNS_PER_STAGE": "2"}) as bench, _instance(bench) as instance:
        [channel] = bench.channels(1)
        for count in sorted(options.videos):
            for table in TABLES:
                _fill(bench, instance, channel.name, count, table)
                _measure(report, bench, instance, count, table, options.ticks)
    return report


@contextmanager
def _instance(bench: Bench) -> Iterator[dg.DagsterInstance]:
    os.environ.update({n: v for n, v in bench.environment.items() if n.startswith("PHANTOMS_")})
    ref = InstanceRef.from_dir(str(prepare(bench.home, bench.services.settings)))
    assert ref.storage_data is not None
    assert ref.storage_data.class_name == PooledPostgresStorage.__name__
    with dg.DagsterInstance.from_ref(ref) as instance:
        yield instance


def _fill(bench: Bench, instance: dg.DagsterInstance, channel: str, count: int, table: str) -> None:
    names = [name for name, stage in STAGES.items() if stage.usual]
    with bench.services.engine.begin() as connection:
        connection.execute(text("TRUNCATE phantoms.stages, phantoms.videos CASCADE"))
        values = {"prefix": KEY.split("{", maxsplit=1)[0], "channel": channel, "count": count, "dated": table == "mixed"}
        connection.execute(ADD_VIDEOS, values)
        connection.execute(ADD_STAGES, {"table": table, "names": names, "stages": len(names)})
    with bench.services.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE phantoms.videos, phantoms.stages"))
    known = len(instance.get_dynamic_partitions(VIDEOS))
    for start in range(known + 1, count + 1, 1000):
        instance.add_dynamic_partitions(VIDEOS, [KEY.format(n) for n in range(start, min(start + 1000, count + 1))])


def _look(instance: dg.DagsterInstance, bench: Bench) -> int:
    return sum(len(tick(instance, bench.services, chain)) for chain in CHAINS.values())


def _measure(report: Report, bench: Bench, instance: dg.DagsterInstance, count: int, table: str, ticks: int) -> None:
    _look(instance, bench)  # connections are made
    took, cpu, planned = [], time.process_time(), 0
    for _ in range(ticks):
        before = time.perf_counter()
        planned = _look(instance, bench)
        took.append((time.perf_counter() - before) * 1000)
    cpu_ms = (time.process_time() - cpu) * 1000 / ticks
    target = TARGETS_MS.get(count)
    p50, p95 = percentile(took, 0.5), percentile(took, 0.95)
    name = f"{count} {table}: p50 ms"
    if target:
        report.check(name, round(p50, 1), f"< {target}", ok=p50 < target)
        report.check(f"{count} {table}: p95 ms", round(p95, 1), f"< {target}", ok=p95 < target)
    else:
        report.tell(name, round(p50, 1))
    report.tell(f"{count} {table}: CPU-ms, runs planned", {"CPU-ms": round(cpu_ms, 1), "runs": planned})
    if table == "idle":
        assert planned == 0
    elif not planned:
        report.problems.append(f"nothing was planned with {count} videos in the table {table}")
