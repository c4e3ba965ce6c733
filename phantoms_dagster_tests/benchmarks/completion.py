"""Waits until all videos have ended, and reports how they ended."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import DBAPIError

from phantoms_dagster_tests.benchmarks.world import Bench

# Of an unknown outcome whose read-back lies so far ahead that nothing will be known within this benchmark.
FAR_SECONDS = 60.0
POLL_SECONDS = 0.5
POSTED_POLL_SECONDS = 0.1

_OPEN = f"""
    SELECT s.stage, s.state, s.error_class, count(*) AS n
    FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
    WHERE v.registered_at IS NOT NULL AND (s.state IN ('ready', 'running') OR (s.state = 'deferred' AND NOT (
        s.error_class IS NOT DISTINCT FROM 'unknown' AND s.retry_at > clock_timestamp() + interval '{FAR_SECONDS:g} seconds')))
    GROUP BY 1, 2, 3
"""

# What each wanted post came to, or the first stage on its way that is not done.
_FATES = """
    SELECT v.key, p.platform, s.state AS post_state, f.stage, f.state, f.error_class, f.reason
    FROM phantoms.videos v CROSS JOIN LATERAL unnest(v.platforms) AS p(platform)
    JOIN phantoms.stages s ON s.video_id = v.id AND s.stage = p.platform || '/post'
    LEFT JOIN LATERAL (
        SELECT o.stage, o.state, o.error_class, o.reason FROM phantoms.stages o
        WHERE o.video_id = v.id AND o.state NOT IN ('done', 'blocked')
            AND (o.stage NOT LIKE '%/%' OR o.stage LIKE p.platform || '/%')
        ORDER BY o.stage LIKE '%/%', o.stage LIMIT 1) f ON true
    WHERE v.registered_at IS NOT NULL
    ORDER BY v.id
"""


@dataclass
class Fates:
    """How the wanted posts ended: `posted`, `letters` (dead letter, here or before), `unknown`, `stuck` (with a description)."""

    counts: Counter[str] = field(default_factory=Counter)
    stuck: list[str] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    """What waits for its read-back: how many posts, by stage and reason."""


def wait_until_ended(
    bench: Bench, *, seconds: float, during: Callable[[float], Any] = lambda _: None, total: int | None = None
) -> bool:
    """Wait that long for every registered video to end. Returns whether all did. `during` is called with the share that is done."""
    deadline = time.monotonic() + seconds
    said = 0.0
    while time.monotonic() < deadline:
        try:
            # In this order: what is registered after the first look must be seen by the second.
            all_here = total is None or len(bench.rows("SELECT id FROM phantoms.videos WHERE registered_at IS NOT NULL")) >= total
            left = bench.rows(_OPEN)
            share = done_share(bench)
        except DBAPIError:
            time.sleep(POLL_SECONDS)  # it is being restarted
            continue
        during(share)
        if all_here and not left:
            return True
        if time.monotonic() - said > 10 and sys.stderr.isatty():
            said = time.monotonic()
            sys.stderr.write(f"  {share:.0%} of all stages are done\n")
        time.sleep(POLL_SECONDS)
    return False


def wait_until_posted(bench: Bench, *, seconds: float, posts: int) -> bool:
    """Wait that long until that many post stages are done. Returns whether they are. Cheaper and faster than `wait_until_ended`."""
    statement = "SELECT count(*) AS n FROM phantoms.posts WHERE state = 'confirmed'"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if bench.rows(statement)[0]["n"] >= posts and not bench.rows(_OPEN):
            return True
        time.sleep(POSTED_POLL_SECONDS)
    return False


def done_share(bench: Bench) -> float:
    """The share of stages that are done, of those of all registered videos."""
    row = bench.rows(
        """SELECT count(*) FILTER (WHERE s.state = 'done') AS done, count(*) AS total
        FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id WHERE v.registered_at IS NOT NULL"""
    )[0]
    return float(row["done"] / max(1, row["total"]))


def fates(bench: Bench) -> Fates:
    """Return how every wanted post ended."""
    found = Fates()
    for row in bench.rows(_FATES):
        if row["post_state"] == "done":
            found.counts["posted"] += 1
        elif row["state"] in ("failed", "rejected", "discarded"):
            found.counts["letters"] += 1
        elif row["state"] == "deferred" and row["error_class"] == "unknown":
            found.counts["unknown"] += 1
            found.unknown[f"{row['stage']}: {row['reason']}"] += 1
        else:
            found.counts["stuck"] += 1
            found.stuck.append(
                f"{row['key']} on {row['platform']}: {row['stage']} is {row['state']} ({row['reason'] or 'no reason'})"
            )
    return found
