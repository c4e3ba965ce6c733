"""Numbers for metrics. They are cheap to read every few seconds with 100,000 videos. Lists for people are in `catalogue`.

Numbers that only grow (attempts, posts, cost) are counted once: a reader keeps the totals up to some minutes ago and reads only
what finished since. Rows get their end time right before their commit, so older rows do not appear later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection, Engine, text

from phantoms_dagster.domain.accounts import CONNECTED, STANDINGS, standing
from phantoms_dagster.domain.stages import STAGES, StageState
from phantoms_dagster.store.accounts import listed

# Upper bounds of the histogram, in seconds: ten seconds to a week.
BUCKETS = (10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0, 86_400.0, 604_800.0)
# A transaction that takes longer than this from its end time to its commit would be missed. Ours take milliseconds.
SETTLED = timedelta(minutes=5)
# How far the totals advance at once. What is newer is counted again with each reading.
_STEP = timedelta(minutes=1)
# The first reading counts everything. No other should take nearly this long.
_LONGEST = "SET LOCAL statement_timeout = '60s'"

_VIDEOS = text("SELECT stage, state, count(*) AS n FROM phantoms.stages GROUP BY stage, state")

# now() and not clock_timestamp(), which cannot bound an index scan. So posts that are scheduled for later are not scanned.
_OLDEST = text(
    """
    SELECT w.stage, extract(epoch FROM now() - min(d.due))::float8 AS seconds
    FROM unnest(CAST(:stages AS text[])) AS w(stage) CROSS JOIN LATERAL (
        (SELECT s.ready_at AS due FROM phantoms.stages s
            WHERE s.stage = w.stage AND s.state = 'ready' AND s.ready_at <= now() ORDER BY s.ready_at LIMIT 1)
        UNION ALL
        (SELECT s.retry_at FROM phantoms.stages s
            WHERE s.stage = w.stage AND s.state = 'deferred' AND s.retry_at <= now() ORDER BY s.retry_at LIMIT 1)) AS d
    GROUP BY w.stage
    """
)

_LETTERS = text("SELECT stage, error_class, count(*) AS n FROM phantoms.dead_letters WHERE state = 'open' GROUP BY 1, 2")

# A success need not name its provider; a post's is its platform.
_ATTEMPTS = text(
    """
    SELECT a.stage,
        COALESCE(a.provider, CASE WHEN a.stage LIKE '%/post' THEN split_part(a.stage, '/', 1) END, '') AS provider,
        CASE WHEN a.state = 'done' THEN 'done' ELSE COALESCE(a.error_class, a.state) END AS outcome,
        count(*) AS n, sum(a.cost) AS cost
    FROM phantoms.attempts a
    WHERE a.finished_at >= :since AND a.finished_at < :until
    GROUP BY 1, 2, 3
    """
)

# A video may be approved again after a change: the approval that counts is the last one before the post.
_POSTS = text(
    """
    SELECT p.platform, (SELECT count(*) FROM unnest(CAST(:buckets AS float8[])) AS b(bound) WHERE b.bound < w.seconds) AS bucket,
        w.seconds IS NOT NULL AS approved, count(*) AS n, COALESCE(sum(w.seconds), 0)::float8 AS seconds
    FROM phantoms.posts p LEFT JOIN LATERAL (
        SELECT extract(epoch FROM p.published_at - a.decided_at)::float8 AS seconds FROM phantoms.approvals a
        WHERE a.video_id = p.video_id AND a.approved AND a.decided_at <= p.published_at ORDER BY a.id DESC LIMIT 1) AS w ON true
    WHERE p.published_at >= :since AND p.published_at < :until
    GROUP BY 1, 2, 3
    """
)


@dataclass
class Totals:
    """The numbers that only grow. `attempts`: by (stage, provider, outcome). `waits`: posts by bucket, the last one open-ended."""

    attempts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    cost_usd: Decimal = Decimal(0)
    posts: Counter[str] = field(default_factory=Counter)
    waits: Counter[int] = field(default_factory=Counter)
    waited_seconds: float = 0.0

    def __add__(self, other: Totals) -> Totals:
        """The sum of both."""
        return Totals(
            self.attempts + other.attempts,
            self.cost_usd + other.cost_usd,
            self.posts + other.posts,
            self.waits + other.waits,
            self.waited_seconds + other.waited_seconds,
        )


@dataclass(frozen=True)
class StatisticsReading:
    """All numbers at one time. `videos`: by (stage, state), for every pair. `dead_letters`: the open ones, by (stage, class).

    `oldest_seconds`: by stage, for how long the longest waiting video has been ready; 0 when none waits. `accounts`: by platform,
    name and standing, 1 for the standing that the account has now.
    """

    videos: Mapping[tuple[str, str], int]
    oldest_seconds: Mapping[str, float]
    dead_letters: Mapping[tuple[str, str], int]
    totals: Totals
    accounts: Mapping[tuple[str, str, str], int]


class Statistics:
    """Reads the numbers. It keeps totals between readings, so keep one instance, and use it from one thread at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._settled = Totals()
        self._until: datetime | None = None

    def read(self) -> StatisticsReading:
        """The current numbers. Raises SQLAlchemyError; the totals are unchanged then."""
        with self._engine.connect() as connection, connection.begin():
            connection.execute(text(_LONGEST))
            now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
            settled, until = self._settled, self._until
            edge = now - SETTLED
            if until is None or edge - until >= _STEP:
                settled, until = settled + _totals(connection, until, edge), edge
            totals = settled + _totals(connection, until, None)
            videos, oldest, letters = _videos(connection), _oldest(connection), _letters(connection)
            reading = StatisticsReading(videos, oldest, letters, totals, _accounts(connection, now))
        self._settled, self._until = settled, until
        return reading


def _videos(connection: Connection) -> dict[tuple[str, str], int]:
    counts = {(stage, str(state)): 0 for stage in STAGES for state in StageState}
    return counts | {(row.stage, row.state): row.n for row in connection.execute(_VIDEOS)}


def _oldest(connection: Connection) -> dict[str, float]:
    rows = connection.execute(_OLDEST, {"stages": list(STAGES)})
    return dict.fromkeys(STAGES, 0.0) | {row.stage: row.seconds for row in rows}


def _accounts(connection: Connection, now: datetime) -> dict[tuple[str, str, str], int]:
    found: dict[tuple[str, str], str] = {}
    for account in listed(connection):  # first as its platform knows it, then as its gateway does
        key, state = (str(account.platform), account.name), standing(account, now).state
        if found.get(key, CONNECTED) == CONNECTED:
            found[key] = state
    return {(*key, state): int(state == current) for key, current in found.items() for state in STANDINGS}


def _letters(connection: Connection) -> dict[tuple[str, str], int]:
    return {(row.stage, row.error_class): row.n for row in connection.execute(_LETTERS)}


def _totals(connection: Connection, since: datetime | None, until: datetime | None) -> Totals:
    """What was finished in `since <= time < until`; None: without that bound."""
    span = {"since": since or "-infinity", "until": until or "infinity"}
    totals = Totals()
    for row in connection.execute(_ATTEMPTS, span):
        totals.attempts[row.stage, row.provider, row.outcome] += row.n
        totals.cost_usd += row.cost
    for row in connection.execute(_POSTS, {**span, "buckets": list(BUCKETS)}):
        totals.posts[row.platform] += row.n
        if row.approved:
            totals.waits[row.bucket] += row.n
            totals.waited_seconds += row.seconds
    return totals
