"""*fast_paths*: what fast paths save, each against its plain implementation, in turns in one run.

The CPU of Dagster's paths is that of this process, without PostgreSQL's. The paths `daemon` and `webserver` save waiting and
wake-ups: *latency* and *idle* measure those, with `PHANTOMS_DAGSTER_FAST_PATHS` on and off. `statements` is the time of the
statement that closes 10 of 2,000 claims. PostgreSQL's statistics date from a time when nothing was running.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import dagster as dg
import yaml
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from sqlalchemy import TextClause, text
from sqlalchemy.engine import make_url

from phantoms_dagster.defs.events import Stamps, report_events
from phantoms_dagster.defs.in_flight import open_backfills
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.embedded.servers import EmbeddedServers
from phantoms_dagster.execution.storage import engine
from phantoms_dagster.private import dagster as private
from phantoms_dagster.store import outcomes
from phantoms_dagster_tests.benchmarks.planner import ADD_STAGES, ADD_VIDEOS
from phantoms_dagster_tests.benchmarks.report import Report
from phantoms_dagster_tests.benchmarks.world import Bench, open_bench

# What a process does that opens the storage, launcher and compute logs of an instance.
_IMPORTS = "from phantoms_dagster.execution import compute_logs, launcher, storage"
_STORAGE = {"module": "phantoms_dagster.execution.storage", "class": "PooledPostgresStorage", "config": {}}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--rounds", type=int, default=3, help="pairs of each path (3)")
    parser.add_argument("--events", type=int, default=100, help="events in a batch, and reads of the storage (100)")


def run(options: argparse.Namespace) -> Report:
    """Each path on and off, in turns. A path should not cost more than its plain implementation."""
    report = Report("fast_paths", {"rounds": options.rounds, "events": options.events})
    works: dict[str, Callable[[Path], float]] = {"parts": _parts}
    with tempfile.TemporaryDirectory() as folder, EmbeddedServers(Path(folder), durable=False) as urls:
        url = make_url(urls.database_url).set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)
        given = {"PHANTOMS_DATABASE_URL": urls.database_url, "PHANTOMS_DAGSTER_DATABASE_URL": url}
        (Path(folder) / "dagster.yaml").write_text(yaml.safe_dump({"storage": {"custom": _STORAGE}}), encoding="utf-8")
        works |= {
            "storage": lambda home: _reads(home, options.events),
            "events": lambda home: _events(home, options.events),
            "backfills": _backfills,
        }
        with mock.patch.dict(os.environ, {**given, "DAGSTER_EVENT_BATCH_SIZE": "500"}):
            for path, work in works.items():
                on, off = [], []
                for _ in range(options.rounds):
                    with _switched(path, on=True):
                        on.append(work(Path(folder)))
                    with _switched(path, on=False):
                        off.append(work(Path(folder)))
                fast, plain = statistics.median(on), statistics.median(off)
                said = f"{fast * 1000:.0f} of {plain * 1000:.0f} CPU-ms, {plain / fast:.1f} times"
                report.check(path, said, "not above the plain implementation", ok=fast <= plain)
        engine(url).dispose()
    _statements(report, options.rounds)
    return report


def _statements(report: Report, rounds: int) -> None:
    plain = text(str(outcomes._FINISH).replace("IS NOT DISTINCT FROM", "="))
    fast, slow = [], []
    with open_bench() as bench:
        _claim_all(bench)
        for _ in range(rounds):
            fast.append(_close(bench, outcomes._FINISH))
            slow.append(_close(bench, plain))
    quick, without = statistics.median(fast), statistics.median(slow)
    said = f"{quick * 1000:.0f} of {without * 1000:.0f} ms, {without / quick:.1f} times"
    report.check("statements", said, "not above the plain implementation", ok=quick <= without)


def _claim_all(bench: Bench) -> None:
    """Claim the scripts of 2,000 videos. PostgreSQL's statistics still say that none is running."""
    [channel] = bench.channels(1)
    with bench.services.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(ADD_VIDEOS, {"prefix": "20261122-a-fact-", "channel": channel.name, "count": 2_000, "dated": False})
        names = [name for name, stage in STAGES.items() if stage.usual]
        connection.execute(ADD_STAGES, {"table": "flood", "names": names, "stages": len(names)})
        connection.execute(text("ALTER TABLE phantoms.stages SET (autovacuum_enabled = false)"))
        connection.execute(text("VACUUM ANALYZE phantoms.videos, phantoms.stages, phantoms.attempts"))
        connection.execute(
            text(
                "UPDATE phantoms.stages SET state = 'running', generation = 1, lease_owner = 'benchmark', "
                "lease_until = clock_timestamp() + interval '1 hour' WHERE stage = 'script'"
            )
        )
        connection.execute(
            text(
                "INSERT INTO phantoms.attempts (video_id, stage, revision, generation, run_id) "
                "SELECT video_id, stage, revision, generation, 'benchmark' FROM phantoms.stages WHERE stage = 'script'"
            )
        )


def _close(bench: Bench, statement: TextClause) -> float:
    """Close 10 claims, and undo that, 20 times. Returns the seconds that it took."""
    with bench.services.engine.connect() as connection:
        claimed = connection.execute(text("SELECT id, video_id FROM phantoms.attempts ORDER BY id LIMIT 10")).all()
        fields = {"stage": "script", "generation": 1, "owner": "benchmark", "state": "done", "counts": 0}
        rows = json.dumps([{**fields, "video_id": row.video_id, "attempt_row": row.id} for row in claimed])
        following = json.dumps([{"made": "script", "stage": "voiceover"}])
        took = 0.0
        for _ in range(20):
            since = time.perf_counter()
            closed = connection.execute(statement, {"rows": rows, "next": following}).all()
            took += time.perf_counter() - since
            connection.rollback()
            assert len(closed) == 10
    return took


@contextmanager
def _switched(path: str, *, on: bool) -> Iterator[None]:
    usable = private.usable
    with (
        mock.patch.object(private, "usable", lambda asked: on if asked == path else usable(asked)),
        mock.patch.dict(os.environ, {private.VARIABLE: "auto" if on or path != "parts" else "off"}),
    ):
        yield


def _parts(_: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", _IMPORTS], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _reads(home: Path, count: int) -> float:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.get_runs_count()
        since = time.process_time()
        for _ in range(count):
            instance.get_runs_count()
            instance.get_latest_materialization_event(dg.AssetKey("master"))
        return time.process_time() - since


def _backfills(home: Path) -> float:
    """The CPU of reading the open ones of 500 backfills with 100 partitions each. All have ended."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        if not instance.get_backfills_count():
            keys = [f"20261122-a-fact-{number:03d}" for number in range(100)]
            for number in range(500):
                instance.add_backfill(
                    PartitionBackfill(
                        f"ended-{number}",
                        BulkActionStatus.COMPLETED_SUCCESS,
                        from_failure=False,
                        tags={},
                        backfill_timestamp=float(number),
                        asset_selection=[dg.AssetKey("master")],
                        partition_names=keys,
                    )
                )
        since = time.process_time()
        assert not open_backfills(instance)
        return time.process_time() - since


def _events(home: Path, count: int) -> float:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        made = [dg.AssetMaterialization("master", partition=str(number)) for number in range(count)]
        since = time.process_time()
        report_events(instance, made, stamps=Stamps())
        return time.process_time() - since
