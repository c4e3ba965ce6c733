"""The catalogue of channels and videos: add, list and show them. Synchronous, for commands, sensors and pages."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, text

from phantoms_dagster.domain.accounts import token_sources
from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.models import Brief, Channel, Platform
from phantoms_dagster.domain.outlook import WaitingStage
from phantoms_dagster.domain.stages import StageState, stages_for
from phantoms_dagster.store.accounts import put_token_sources
from phantoms_dagster.store.planning import NOTIFY
from phantoms_dagster.store.schema import SCHEMA
from phantoms_dagster.store.stored import brief_of

_SLUG_CHARACTERS = 32
_MOST_ALIKE = 100
# The number of briefs in one statement.
PAGE = 1_000

# A row that another transaction adds at the same time may conflict on either unique column.
_ADD = text(
    """
    INSERT INTO phantoms.videos (key, channel, title, brief, platforms, publish_at, priority, source, added_by, fingerprint)
    SELECT g.key, g.channel, g.title, g.brief, g.platforms, g.publish_at, g.priority, :source, :added_by, g.fingerprint
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS g(n int, key text, channel text, title text, brief jsonb, platforms text[],
        publish_at timestamptz, priority smallint, fingerprint text)
    ORDER BY g.n
    ON CONFLICT DO NOTHING RETURNING id, fingerprint, platforms
    """
)

_ADD_STAGES = text(
    """
    INSERT INTO phantoms.stages (video_id, stage, state, ready_at)
    SELECT g.video_id, g.stage, g.state, CASE WHEN g.state = 'ready' THEN clock_timestamp() END
    FROM unnest(CAST(:ids AS bigint[]), CAST(:stages AS text[]), CAST(:states AS text[])) AS g(video_id, stage, state)
    """
)

_LIST = text(
    """
    SELECT v.key, v.title, v.channel, v.platforms, v.created_at, v.publish_at, v.priority, v.retired_at,
        (SELECT COALESCE(sum(a.cost), 0) FROM phantoms.attempts a WHERE a.video_id = v.id) AS cost,
        (SELECT jsonb_object_agg(s.stage, s.state) FROM phantoms.stages s WHERE s.video_id = v.id) AS states,
        (SELECT jsonb_object_agg(s.stage, jsonb_build_array(s.state, s.ready_at, s.retry_at, s.error_class, s.reason))
            FROM phantoms.stages s WHERE s.video_id = v.id AND s.state NOT IN ('done', 'blocked')) AS waiting,
        (SELECT c.config->'accounts' FROM phantoms.channels c WHERE c.name = v.channel) AS accounts
    FROM phantoms.videos v
    WHERE CAST(:keys AS text[]) IS NULL OR v.key = ANY(:keys)
    ORDER BY v.id DESC LIMIT :limit
    """
)

_STAGES = text(
    """
    SELECT s.stage, s.state, s.revision, s.attempts, s.retry_at, s.lease_until, s.output, s.cost, s.error_class, s.reason,
        s.started_at, s.finished_at, s.run_id, s.cleaned_at, s.ready_at,
        (SELECT jsonb_object_agg(w.name, w.seconds) FROM (
            SELECT p.key AS name, sum(CAST(p.value AS float8)) AS seconds
            FROM phantoms.attempts a CROSS JOIN LATERAL jsonb_each_text(a.paced) p
            WHERE a.video_id = s.video_id AND a.stage = s.stage AND a.revision = s.revision GROUP BY p.key) w) AS paced
    FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id WHERE v.key = :key
    """
)

_OUTPUTS = text(
    """
    SELECT v.key, s.stage, s.output FROM phantoms.videos v JOIN phantoms.stages s ON s.video_id = v.id
    WHERE v.key = ANY(:keys) AND s.stage IN ('script', 'voiceover', 'rendered_video') AND s.state = 'done' AND s.output IS NOT NULL
    """
)


@dataclass(frozen=True)
class Added:
    """An accepted brief. `new` is False when the same brief existed already; then `key` is that video's."""

    key: str
    new: bool


@dataclass(frozen=True)
class VideoRow:
    """A video in a list. `states` maps each of its stages to its state; `cost` is in US dollars.

    `waiting`: the stages that are neither done nor blocked. `accounts`: its channel's, by platform.
    """

    key: str
    title: str
    channel: str
    platforms: tuple[str, ...]
    created_at: datetime
    publish_at: datetime | None
    priority: int
    cost: Decimal
    states: dict[str, str]
    retired_at: datetime | None
    waiting: dict[str, WaitingStage] = field(default_factory=dict)
    accounts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StageRow:
    """One stage of one video, as people see it. `cleaned_at`: when its files were deleted, except those that something else needs.

    `paced`: seconds that its attempts waited for pools and breakers, by name.
    """

    stage: str
    state: str
    revision: int
    attempts: int
    retry_at: datetime | None
    output: dict[str, Any] | None
    cost: Decimal
    error_class: str | None
    reason: str | None
    started_at: datetime | None
    finished_at: datetime | None
    run_id: str | None
    cleaned_at: datetime | None
    ready_at: datetime | None = None
    paced: Mapping[str, float] = field(default_factory=dict)

    @property
    def waiting(self) -> WaitingStage:
        """Why the stage has not ended yet."""
        return WaitingStage(self.state, self.ready_at, self.retry_at, self.error_class, self.reason)

    @property
    def cleaned(self) -> bool:
        """Whether the files of its last output were deleted."""
        return self.cleaned_at is not None and self.finished_at is not None and self.cleaned_at > self.finished_at


def _stage_row(row: RowMapping) -> StageRow:
    return StageRow(**{**{name: value for name, value in row.items() if name != "lease_until"}, "paced": row["paced"] or {}})


def partition_key(brief: Brief, today: datetime, *, salt: str = "") -> str:
    """A key that reads like `ocean-facts-20261122-7f3a`: title, day, four digits of the brief's fingerprint.

    The title comes first, so that lists that show only the beginning of a key still distinguish videos. Keys from older versions
    begin with the day. No code parses a key.
    """
    plain = unicodedata.normalize("NFKD", brief.title).encode("ascii", "ignore").decode().lower()
    return f"{_slug(plain)}-{today:%Y%m%d}-{brief.fingerprint[:4]}{salt}"


def _slug(title: str) -> str:
    """As many words of the title as fit. A first word that is too long is cut."""
    words = re.findall(r"[a-z0-9]+", title)
    slug = words[0][:_SLUG_CHARACTERS] if words else "video"
    for word in words[1:]:
        if len(slug) + 1 + len(word) > _SLUG_CHARACTERS:
            break
        slug = f"{slug}-{word}"
    return slug


# New places follow the highest one, so only one process at a time may assign them.
_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtext('phantoms.videos.place'))")
_REGISTERED = text(
    """
    UPDATE phantoms.videos v SET registered_at = clock_timestamp(), place = w.place + w.after
    FROM (SELECT k.key, k.place, (SELECT COALESCE(max(n.place), 0) FROM phantoms.videos n) AS after
          FROM unnest(CAST(:keys AS text[])) WITH ORDINALITY AS k(key, place)) w
    WHERE v.key = w.key AND (v.registered_at IS NULL OR v.place IS NULL)
    """
)
_IN_ORDER = text(
    "SELECT key FROM phantoms.videos WHERE registered_at IS NOT NULL AND retired_at IS NULL AND place IS NOT NULL ORDER BY place"
)
_REORDER = text(
    """
    UPDATE phantoms.videos v SET place = k.place, registered_at = COALESCE(v.registered_at, clock_timestamp())
    FROM unnest(CAST(:keys AS text[])) WITH ORDINALITY AS k(key, place)
    WHERE v.key = k.key AND v.retired_at IS NULL AND (v.place IS DISTINCT FROM k.place OR v.registered_at IS NULL)
    """
)
_LOST = text(
    """
    UPDATE phantoms.videos v SET place = NULL, registered_at = NULL
    WHERE v.registered_at IS NOT NULL AND v.retired_at IS NULL AND NOT v.key = ANY(:keys)
    """
)


def _add_page(connection: Connection, briefs: Sequence[Brief], source: str, added_by: str | None) -> list[Added]:
    """Add a page of briefs. Returns the result of each, in order."""
    known = _keys_by_fingerprint(connection, [brief.fingerprint for brief in briefs])
    wanted = {brief.fingerprint: brief for brief in briefs if brief.fingerprint not in known}
    fresh: set[str] = set()
    today = datetime.now(UTC)
    for number in range(1, _MOST_ALIKE):  # two briefs may share a day, a slug and four digits
        if not wanted:
            break
        salt = "" if number == 1 else f"-{number}"
        rows = [_row(n, brief, partition_key(brief, today, salt=salt)) for n, brief in enumerate(wanted.values())]
        inserted = connection.execute(_ADD, {"rows": json.dumps(rows), "source": source, "added_by": added_by}).all()
        fresh |= {row.fingerprint for row in inserted}
        stages = [(row.id, stage) for row in inserted for stage in stages_for(tuple(Platform(p) for p in row.platforms))]
        values = {
            "ids": [video_id for video_id, _ in stages],
            "stages": [stage.name for _, stage in stages],
            "states": [str(StageState.BLOCKED if stage.after else StageState.READY) for _, stage in stages],
        }
        connection.execute(_ADD_STAGES, values)
        known |= _keys_by_fingerprint(connection, list(wanted))
        wanted = {fingerprint: brief for fingerprint, brief in wanted.items() if fingerprint not in known}
    if wanted:
        raise InvalidInput(f"there are already a hundred videos titled {next(iter(wanted.values())).title!r} today")
    added = []
    for brief in briefs:
        added.append(Added(known[brief.fingerprint], new=brief.fingerprint in fresh))
        fresh.discard(brief.fingerprint)  # the same brief twice in one page is one video
    return added


def _pages(briefs: Sequence[Brief], size: int) -> Iterator[Sequence[Brief]]:
    """The briefs in pages of at most `size`."""
    for start in range(0, len(briefs), size):
        yield briefs[start : start + size]


def _keys_by_fingerprint(connection: Connection, fingerprints: Sequence[str]) -> dict[str, str]:
    statement = text("SELECT fingerprint, key FROM phantoms.videos WHERE fingerprint = ANY(:fingerprints)")
    return {row.fingerprint: row.key for row in connection.execute(statement, {"fingerprints": list(fingerprints)})}


def _video_row(row: RowMapping) -> VideoRow:
    waiting = {
        name: WaitingStage(s, _time(ready), _time(retry), *why) for name, (s, ready, retry, *why) in (row["waiting"] or {}).items()
    }
    made = {
        "platforms": tuple(row["platforms"]),
        "states": row["states"] or {},
        "waiting": waiting,
        "accounts": row["accounts"] or {},
    }
    return VideoRow(**{**row, **made})


def _time(given: str | None) -> datetime | None:
    """Parse a time that PostgreSQL wrote into JSON."""
    return None if given is None else datetime.fromisoformat(given)


def _row(number: int, brief: Brief, key: str) -> dict[str, Any]:
    return {
        "n": number,
        "key": key,
        "channel": brief.channel,
        "title": brief.title,
        "brief": brief.model_dump(mode="json"),
        "platforms": [str(platform) for platform in brief.platforms],
        "publish_at": brief.publish_at.isoformat() if brief.publish_at else None,
        "priority": brief.priority,
        "fingerprint": brief.fingerprint,
    }


class Catalogue:
    """The catalogue of videos."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def put_channels(self, channels: Iterable[Channel]) -> None:
        """Write the channels of channels.yaml to the table. Removed channels stay for the videos that need them."""
        statement = text(
            """
            INSERT INTO phantoms.channels (name, config) VALUES (:name, CAST(:config AS jsonb))
            ON CONFLICT (name) DO UPDATE SET config = excluded.config, updated_at = clock_timestamp()
            WHERE channels.config IS DISTINCT FROM excluded.config
            """
        )
        # In a fixed order, so that two processes that read different versions of the file cannot deadlock.
        known = sorted(channels, key=lambda channel: channel.name)
        with self._engine.begin() as connection:
            for channel in known:
                connection.execute(statement, {"name": channel.name, "config": channel.model_dump_json()})
            put_token_sources(connection, token_sources(known))

    def add(self, briefs: Sequence[Brief], *, source: str, added_by: str | None = None) -> list[Added]:
        """Add videos, all or none. An existing brief is not added again. `source` says where the briefs came from.

        `added_by`: the person, if known. A file in the inbox has none.

        Each page of briefs is one statement. 25,000 briefs take some seconds.
        """
        with self._engine.begin() as connection:
            return self.add_in(connection, briefs, source=source, added_by=added_by)

    def add_in(self, connection: Connection, briefs: Sequence[Brief], *, source: str, added_by: str | None = None) -> list[Added]:
        """`add` in the caller's transaction."""
        added = [one for page in _pages(briefs, PAGE) for one in _add_page(connection, page, source, added_by)]
        connection.execute(text(NOTIFY))
        return added

    def known(self, fingerprints: Sequence[str]) -> dict[str, str]:
        """The keys of existing briefs, by fingerprint."""
        with self._engine.connect() as connection:
            return _keys_by_fingerprint(connection, fingerprints)

    def add_from(self, briefs: Sequence[Brief], source: str) -> tuple[int, int]:
        """Add videos. Returns how many were new and how many existed already."""
        added = self.add(briefs, source=source)
        return sum(a.new for a in added), sum(not a.new for a in added)

    def videos(self, *, limit: int = 1000, keys: Sequence[str] | None = None) -> list[VideoRow]:
        """The newest videos first."""
        with self._engine.connect() as connection:
            rows = connection.execute(_LIST, {"limit": limit, "keys": list(keys) if keys is not None else None}).mappings()
            return [_video_row(row) for row in rows]

    def find(self, wanted: str) -> str:
        """The key that equals `wanted`, or the only key that contains it. Raises NotFound, or InvalidInput when it is ambiguous."""
        statement = text(
            "SELECT key FROM phantoms.videos WHERE key = :key OR strpos(key, :key) > 0 ORDER BY (key = :key) DESC, id LIMIT 6"
        )
        with self._engine.connect() as connection:
            keys = list(connection.execute(statement, {"key": wanted}).scalars())
        if not keys:
            raise NotFound(f"no video {wanted!r}; `phantoms status` lists them")
        if keys[0] != wanted and len(keys) > 1:
            raise InvalidInput(f"{wanted!r} could be {', '.join(keys)}; give more of the key")
        return str(keys[0])

    def brief(self, key: str) -> Brief:
        """The brief of a video. Raises NotFound or UnreadableRow."""
        with self._engine.connect() as connection:
            brief = connection.execute(text("SELECT brief FROM phantoms.videos WHERE key = :key"), {"key": key}).scalar()
        if brief is None:
            raise NotFound(f"no video {key!r}; `phantoms status` lists them")
        return brief_of(key, brief)

    def channel_name(self, key: str) -> str:
        """The channel of a video. Raises NotFound."""
        with self._engine.connect() as connection:
            name = connection.execute(text("SELECT channel FROM phantoms.videos WHERE key = :key"), {"key": key}).scalar()
        if name is None:
            raise NotFound(f"no video {key!r}; `phantoms status` lists them")
        return str(name)

    def outputs(self, keys: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
        """The stored outputs that a reviewer decides on, by key and stage, as far as they are done."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        if keys:
            with self._engine.connect() as connection:
                for row in connection.execute(_OUTPUTS, {"keys": list(keys)}):
                    found.setdefault(row.key, {})[row.stage] = row.output
        return found

    def retired_at(self, key: str) -> datetime | None:
        """When the video was retired; None when it is not."""
        with self._engine.connect() as connection:
            return connection.execute(text("SELECT retired_at FROM phantoms.videos WHERE key = :key"), {"key": key}).scalar()

    def stages(self, key: str) -> dict[str, StageRow]:
        """The stages of the video, by name."""
        with self._engine.connect() as connection:
            rows = connection.execute(_STAGES, {"key": key}).mappings()
            return {row["stage"]: _stage_row(row) for row in rows}

    def unregistered(self, *, limit: int = 1000) -> list[str]:
        """Keys that Dagster does not know yet, oldest first."""
        statement = text("SELECT key FROM phantoms.videos WHERE registered_at IS NULL ORDER BY id LIMIT :limit")
        with self._engine.connect() as connection:
            return list(connection.execute(statement, {"limit": limit}).scalars())

    def registered(self, keys: Sequence[str]) -> None:
        """Record that Dagster has these partitions, in this order, after all others. Recorded ones keep their position."""
        with self._engine.begin() as connection:
            connection.execute(_ONE_AT_A_TIME)
            connection.execute(_REGISTERED, {"keys": list(keys)})
            connection.execute(text(NOTIFY))

    def unknown(self, keys: Sequence[str]) -> list[str]:
        """The given keys that no video has, in order."""
        statement = text(
            """SELECT k.key FROM unnest(CAST(:keys AS text[])) WITH ORDINALITY AS k(key, n)
            WHERE NOT EXISTS (SELECT FROM phantoms.videos v WHERE v.key = k.key) ORDER BY k.n"""
        )
        with self._engine.connect() as connection:
            return list(connection.execute(statement, {"keys": list(keys)}).scalars())

    def forget(self, keys: Sequence[str]) -> None:
        """Record that Dagster has no partitions for these keys, so that they are registered again."""
        statement = text("UPDATE phantoms.videos SET registered_at = NULL, place = NULL WHERE key = ANY(:keys)")
        with self._engine.begin() as connection:
            connection.execute(statement, {"keys": list(keys)})

    def reorder(self, keys: Sequence[str]) -> int:
        """Take over Dagster's order: `keys` is all it knows. Registered videos that it does not know are registered again.

        The number of rows that were not as Dagster has them.
        """
        with self._engine.begin() as connection:
            connection.execute(_ONE_AT_A_TIME)
            known = connection.execute(_IN_ORDER).scalars().all()
            if list(known) == list(keys):
                return 0
            moved = connection.execute(_REORDER, {"keys": list(keys)}).rowcount
            return moved + connection.execute(_LOST, {"keys": list(keys)}).rowcount

    def counts(self) -> dict[str, dict[str, int]]:
        """How many videos are in which state, by stage."""
        statement = text(f"SELECT stage, state, count(*) AS n FROM {SCHEMA}.stages GROUP BY stage, state")
        found: dict[str, dict[str, int]] = {}
        with self._engine.connect() as connection:
            for row in connection.execute(statement):
                found.setdefault(row.stage, {})[row.state] = row.n
        return found
