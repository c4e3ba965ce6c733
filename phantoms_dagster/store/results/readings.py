"""Readback: which posts are due, snapshots of their metrics, and which accounts cannot be read. `performance` makes the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from sqlalchemy import Connection, Engine, text

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.readback import MOST_DOUBLINGS, READ_FOR, AccountRead, PostReading, PublishedRow, UnreadAccount
from phantoms_dagster.registry.channel_keys import GATEWAY
from phantoms_dagster.store import schema

# A metric that an account did not have is requested again after this many days, because accounts and the API change.
UNSUPPORTED_DAYS = 7

# The longest overdue first, so that if a full pool stops a read early, the next read begins with the posts that were left out.
_DUE = text(
    f"""
    SELECT p.id AS post_id, v.key AS video_key, p.platform, p.account, p.remote_id, p.route = '{GATEWAY}' AS by_gateway,
        r.gone_at IS NOT NULL AS gone,
        clock_timestamp() - r.gone_at AS gone_for,
        clock_timestamp() - p.published_at AS age
    FROM phantoms.posts p
    JOIN phantoms.videos v ON v.id = p.video_id
    LEFT JOIN phantoms.post_reads r ON r.post_id = p.id
    WHERE p.state IN ('published', 'confirmed') AND p.remote_id IS NOT NULL
        AND p.published_at BETWEEN clock_timestamp() - make_interval(secs => :read_for) AND clock_timestamp()
        AND (r.due_at IS NULL OR r.due_at <= clock_timestamp())
        AND NOT EXISTS (SELECT FROM phantoms.post_changes c WHERE c.post_id = p.id AND c.state = 'taken_down')
        -- The real platform does not know posts of the sandbox, and the sandbox does not know real posts.
        AND (CAST(:sandboxed AS text[]) IS NULL OR p.sandbox = (
            p.platform = ANY(CASE WHEN p.route = '{GATEWAY}' THEN CAST(:gateways AS text[]) ELSE CAST(:sandboxed AS text[]) END)))
    ORDER BY COALESCE(r.due_at, p.published_at), p.id
    """
)

_READ = text(
    """
    INSERT INTO phantoms.post_reads AS r (post_id, due_at, read_at)
    VALUES (:post_id, clock_timestamp() + make_interval(secs => :again), clock_timestamp())
    ON CONFLICT (post_id) DO UPDATE
    SET due_at = excluded.due_at, read_at = excluded.read_at, gone_at = NULL, failures = 0, problem = NULL
    """
)

_GONE = text(
    """
    INSERT INTO phantoms.post_reads AS r (post_id, due_at, gone_at)
    VALUES (:post_id, clock_timestamp() + make_interval(secs => :again), clock_timestamp())
    ON CONFLICT (post_id) DO UPDATE
    SET due_at = excluded.due_at, gone_at = COALESCE(r.gone_at, excluded.gone_at), failures = 0, problem = NULL
    """
)

_FAILED = text(
    """
    INSERT INTO phantoms.post_reads AS r (post_id, due_at, failures, problem)
    VALUES (:post_id, clock_timestamp() + make_interval(secs => :again), 1, :problem)
    ON CONFLICT (post_id) DO UPDATE
    SET due_at = clock_timestamp() + make_interval(secs => :again * 2 ^ least(r.failures, :most)),
        failures = r.failures + 1, problem = excluded.problem
    """
)

_ACCOUNT = text(
    """
    INSERT INTO phantoms.account_reads AS a (platform, account, read_at, failing_since, problem)
    VALUES (:platform, :account, CASE WHEN :problem ::text IS NULL THEN clock_timestamp() END,
        CASE WHEN :problem IS NOT NULL THEN clock_timestamp() END, :problem)
    ON CONFLICT (platform, account) DO UPDATE
    SET read_at = COALESCE(excluded.read_at, a.read_at), problem = excluded.problem,
        failing_since = CASE WHEN excluded.problem IS NOT NULL THEN COALESCE(a.failing_since, excluded.failing_since) END
    """
)

_LEARNT = text(
    """
    UPDATE phantoms.account_reads SET unsupported = :unsupported, unsupported_at = clock_timestamp()
    WHERE platform = :platform AND account = :account
    """
)

_UNSUPPORTED = text(
    """
    SELECT platform, account, unsupported FROM phantoms.account_reads
    WHERE unsupported <> '{}' AND unsupported_at > clock_timestamp() - make_interval(days => :days)
    """
)

_UNREAD = text(
    """
    SELECT platform, account, failing_since AS since, problem FROM phantoms.account_reads
    WHERE failing_since <= clock_timestamp() - make_interval(secs => :longer_than)
    ORDER BY failing_since, platform, account
    """
)

_SPAN = text(
    """
    SELECT min(post_id), max(post_id) FROM phantoms.metric_snapshots
    WHERE at < clock_timestamp() - make_interval(secs => :whole)
    """
)

# For each period, keep the last snapshot and the last one with each metric. If a platform reported nothing at the end of the day,
# its numbers from noon are still valid.
_THIN = text(
    """
    WITH aged AS (
        SELECT id, post_id, at, views, likes, comments, shares, watch_seconds,
            CASE WHEN at > clock_timestamp() - interval '7 days' THEN interval '1 hour'
                WHEN at > clock_timestamp() - interval '90 days' THEN interval '1 day'
                ELSE interval '7 days' END AS width
        FROM phantoms.metric_snapshots
        WHERE post_id BETWEEN :first AND :last AND at < clock_timestamp() - make_interval(secs => :whole)
    ), judged AS (
        SELECT id, row_number() OVER span = 1
            OR (views IS NOT NULL AND count(views) OVER later = 0)
            OR (likes IS NOT NULL AND count(likes) OVER later = 0)
            OR (comments IS NOT NULL AND count(comments) OVER later = 0)
            OR (shares IS NOT NULL AND count(shares) OVER later = 0)
            OR (watch_seconds IS NOT NULL AND count(watch_seconds) OVER later = 0) AS stays
        FROM aged
        WINDOW span AS (
                PARTITION BY post_id, width, date_bin(width, at, TIMESTAMPTZ '2001-01-01 00:00+00') ORDER BY at DESC, id DESC
            ),
            later AS (span ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
    )
    DELETE FROM phantoms.metric_snapshots m USING judged WHERE judged.id = m.id AND NOT judged.stays
    """
)
# All snapshots of this time are kept.
WHOLE = timedelta(days=2)
_POSTS_AT_ONCE = 2_000


class Results:
    """Stores what was read back, and says what to read next."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def due(self, sandboxed: Sequence[str] | None = None, gateways: Sequence[str] = ()) -> list[PublishedRow]:
        """The published posts that are due, the longest overdue first.

        `sandboxed`: the platforms that use the sandbox now; only real posts of the others are read. None: all posts.
        `gateways`: the platforms whose gateway uses the sandbox now. It counts for posts that the gateway published.
        """
        sandbox = {"sandboxed": None if sandboxed is None else list(sandboxed), "gateways": list(gateways)}
        values = {"read_for": READ_FOR.total_seconds(), **sandbox}
        with self._engine.connect() as connection:
            rows = connection.execute(_DUE, values).mappings()
            return [PublishedRow(**{**row, "platform": Platform(row["platform"])}) for row in rows]

    def record(self, readings: Sequence[PostReading]) -> None:
        """Store the readings of one page: metrics as snapshots with the current time, and when each post is due again."""
        with self._engine.begin() as connection:
            _insert_snapshots(connection, readings)
            for reading in readings:
                given = {"post_id": reading.post_id, "again": reading.again.total_seconds()}
                if reading.problem is not None:
                    connection.execute(_FAILED, {**given, "problem": reading.problem, "most": MOST_DOUBLINGS})
                else:
                    connection.execute(_GONE if reading.gone else _READ, given)

    def record_accounts(self, accounts: Sequence[AccountRead], before: Mapping[tuple[Platform, str], frozenset[str]]) -> None:
        """Store the result of reading each account. `before`: the result of `unsupported` at the start."""
        with self._engine.begin() as connection:
            for found in accounts:
                who = {"platform": str(found.platform), "account": found.account}
                connection.execute(_ACCOUNT, {**who, "problem": found.problem})
                if found.unsupported != before.get((found.platform, found.account), frozenset()):
                    connection.execute(_LEARNT, {**who, "unsupported": sorted(found.unsupported)})

    def unsupported(self) -> dict[tuple[Platform, str], frozenset[str]]:
        """The metrics that each account was found not to have within the last week, by account."""
        with self._engine.connect() as connection:
            rows = connection.execute(_UNSUPPORTED, {"days": UNSUPPORTED_DAYS}).all()
            return {(Platform(platform), account): frozenset(names) for platform, account, names in rows}

    def unread(self, *, longer_than: timedelta = timedelta(0)) -> list[UnreadAccount]:
        """The accounts whose reads have failed for longer than that, the longest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(_UNREAD, {"longer_than": longer_than.total_seconds()}).mappings()
            return [UnreadAccount(**{**row, "platform": Platform(row["platform"])}) for row in rows]

    def thin(self) -> int:
        """Delete superfluous snapshots. Returns how many were deleted.

        All of the last two days stay, then one per hour up to a week, one per day up to 90 days, and one per week after that.
        """
        given = {"whole": WHOLE.total_seconds()}
        with self._engine.connect() as connection:
            first, last = connection.execute(_SPAN, given).one()
        deleted = 0
        for start in range(first, last + 1, _POSTS_AT_ONCE) if first is not None else ():
            with self._engine.begin() as connection:
                done = connection.execute(_THIN, {**given, "first": start, "last": start + _POSTS_AT_ONCE - 1})
                deleted += done.rowcount
        return deleted


def _insert_snapshots(connection: Connection, readings: Sequence[PostReading]) -> None:
    rows = [
        {
            "post_id": reading.post_id,
            "views": m.views,
            "likes": m.likes,
            "comments": m.comments,
            "shares": m.shares,
            "watch_seconds": m.watch_seconds,
        }
        for reading in readings
        if (m := reading.metrics) is not None
    ]
    if rows:
        connection.execute(schema.metric_snapshots.insert(), rows)
