"""Reads the desk's board: videos by search, with the states of their stages, and counts. `bulk` acts on them.

Each statement contains only the conditions of its search, so that PostgreSQL can choose the best index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, TextClause, text

from phantoms_dagster.domain.outlook import WaitingStage
from phantoms_dagster.domain.search import OF_VIDEOS, Search
from phantoms_dagster.domain.stages import STAGES

NEWEST = 2**62
# Results up to this size are counted exactly.
MOST_COUNTED = 1_000
_NOT_ENDED = ("ready", "deferred", "running", "failed", "rejected")

_ROW = """v.id, v.key, v.title, v.channel, v.platforms, v.created_at, v.publish_at, v.priority, v.retired_at,
    (SELECT jsonb_object_agg(s.stage, jsonb_build_array(s.state, s.ready_at, s.retry_at, s.error_class, s.reason, s.updated_at))
        FROM phantoms.stages s WHERE s.video_id = v.id) AS stages,
    (SELECT c.config->'accounts' FROM phantoms.channels c WHERE c.name = v.channel) AS accounts,
    (SELECT h.reviewer FROM phantoms.holds h WHERE h.video_id = v.id) AS held_by"""

# Only stages that have not ended are counted, along their index. The table is large.
COUNTS = text(
    """
    SELECT stage, state, count(*) AS n FROM phantoms.stages
    WHERE state IN ('ready', 'deferred', 'running', 'failed') GROUP BY stage, state
    """
)


@dataclass(frozen=True)
class BoardRow:
    """A video on the board. `stages`: its stages. `changed_at`: when each changed last. `accounts`: its channel's."""

    id: int
    key: str
    title: str
    channel: str
    platforms: tuple[str, ...]
    created_at: datetime
    publish_at: datetime | None
    priority: int
    retired_at: datetime | None
    held_by: str | None
    stages: dict[str, WaitingStage] = field(default_factory=dict)
    changed_at: dict[str, datetime] = field(default_factory=dict)
    accounts: dict[str, str] = field(default_factory=dict)


class Board:
    """Reads the board."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def rows(self, search: Search, *, before: int = NEWEST, limit: int = 50) -> list[BoardRow]:
        """The matching videos with an id below `before`, the newest first."""
        conditions, values = conditions_of(search)
        statement = _sql(f"SELECT {_ROW} FROM phantoms.videos v WHERE v.id < :before{conditions} ORDER BY v.id DESC LIMIT :limit")
        with self._engine.connect() as connection:
            found = connection.execute(statement, {**values, "before": before, "limit": limit}).mappings()
            return [_row(row) for row in found]

    def of(self, keys: Sequence[str]) -> list[BoardRow]:
        """These videos."""
        statement = text(f"SELECT {_ROW} FROM phantoms.videos v WHERE v.key = ANY(:keys) ORDER BY v.id DESC")
        with self._engine.connect() as connection:
            return [_row(row) for row in connection.execute(statement, {"keys": list(keys)}).mappings()]

    def count(self, search: Search) -> int:
        """How many videos match; at most MOST_COUNTED + 1."""
        statement, values = count_of(search)
        with self._engine.connect() as connection:
            return int(connection.execute(statement, values).scalar_one())

    def counts(self) -> dict[str, dict[str, int]]:
        """How many videos are ready, deferred, running or failed, by stage."""
        found: dict[str, dict[str, int]] = {name: {} for name in STAGES}
        with self._engine.connect() as connection:
            for row in connection.execute(COUNTS):
                found.setdefault(row.stage, {})[row.state] = row.n
        return found

    def channels(self) -> list[str]:
        """The names of the channels."""
        with self._engine.connect() as connection:
            return list(connection.execute(text("SELECT name FROM phantoms.channels ORDER BY name")).scalars())

    def zones(self) -> list[str]:
        """The time zones of the channels."""
        statement = text("SELECT DISTINCT config->>'timezone' FROM phantoms.channels WHERE config ? 'timezone' ORDER BY 1")
        with self._engine.connect() as connection:
            return list(connection.execute(statement).scalars())


def keys_of(connection: Connection, search: Search, *, most: int) -> list[str]:
    """The keys of matching videos, the oldest first."""
    statement, values = key_statement(search)
    return list(connection.execute(statement, {**values, "limit": most}).scalars())


def key_statement(search: Search) -> tuple[TextClause, dict[str, Any]]:
    """The statement of `keys_of`, and its parameters without `limit`."""
    conditions, values = conditions_of(search)
    return text(f"SELECT v.key FROM phantoms.videos v WHERE v.id > 0{conditions} ORDER BY v.id LIMIT :limit"), values


def count_of(search: Search) -> tuple[TextClause, dict[str, Any]]:
    """The statement that counts matching videos, and its parameters."""
    conditions, values = conditions_of(search)
    # If the search has a condition with an index on videos, that index finds them. Otherwise read them one by one until the limit.
    by_index = search.words or search.channel or search.priority is not None or search.since or search.state in OF_VIDEOS
    order = "" if by_index and not search.of_stages else " ORDER BY v.id"
    inner = f"SELECT FROM phantoms.videos v WHERE v.id > 0{conditions}{order} LIMIT {MOST_COUNTED + 1}"
    return _sql(f"SELECT count(*) FROM ({inner}) found"), values


@lru_cache(maxsize=256)
def _sql(statement: str) -> TextClause:
    """The statement, compiled. It is cached: people repeat the same kinds of searches, and values are parameters."""
    return text(statement)


def conditions_of(search: Search) -> tuple[str, dict[str, Any]]:
    """The conditions of a search as SQL, each after an AND, and their parameters. Stage and state names come from our own lists."""
    found = ["v.retired_at IS NOT NULL" if search.state == "retired" else "v.retired_at IS NULL"]
    values: dict[str, Any] = {}
    if search.words:
        found.append("v.words @@ to_tsquery('simple', :words)")
        values["words"] = " & ".join(f"'{word}':*" for word in search.words)
    if search.channel:
        found.append("v.channel = :channel")
        values["channel"] = search.channel
    if search.platform:
        found.append("v.platforms @> ARRAY[CAST(:platform AS text)]")
        values["platform"] = search.platform
    if search.priority is not None:
        found.append("v.priority = :priority")
        values["priority"] = search.priority
    if search.state == "held":
        found.append("v.id IN (SELECT h.video_id FROM phantoms.holds h)")
    if search.since is not None:
        values["since"] = search.since
    if search.of_stages:
        found.append(_stage_condition(search))
    elif search.since is not None:
        found.append("v.created_at >= :since")
    return "".join(f"\n    AND {condition}" for condition in found), values


def _stage_condition(search: Search) -> str:
    names = ", ".join(f"'{name}'" for name in search.stages or STAGES)
    wanted = _NOT_ENDED if not search.state or search.state in OF_VIDEOS else (search.state,)
    states = ", ".join(f"'{state}'" for state in wanted)
    since = " AND s.updated_at >= :since" if search.since is not None else ""
    return (
        f"EXISTS (SELECT FROM phantoms.stages s WHERE s.video_id = v.id AND s.stage IN ({names}) AND s.state IN ({states}){since})"
    )


def _row(row: RowMapping) -> BoardRow:
    stages: Mapping[str, Sequence[Any]] = row["stages"] or {}
    waiting = {
        name: WaitingStage(state, _time(ready), _time(retry), error, reason)
        for name, (state, ready, retry, error, reason, _) in stages.items()
    }
    changed = {name: datetime.fromisoformat(found[5]) for name, found in stages.items()}
    made = {"platforms": tuple(row["platforms"]), "accounts": row["accounts"] or {}}
    return BoardRow(**{**row, **made, "stages": waiting, "changed_at": changed})


def _time(given: str | None) -> datetime | None:
    return None if given is None else datetime.fromisoformat(given)
