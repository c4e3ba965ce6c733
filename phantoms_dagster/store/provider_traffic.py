"""Reads each provider's attempts of the last hour and the waiting stages, for the desk. Every statement uses an index."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, text

from phantoms_dagster.store.engine import reading

SLICES, SLICE_SECONDS = 12, 300

# now(), not clock_timestamp(), because an index is used only for a time that is constant within the statement.
_HOUR = text(
    f"""
    SELECT provider, floor(extract(epoch FROM now() - finished_at) / {SLICE_SECONDS})::int AS slice,
        count(*) FILTER (WHERE error_class IS NULL) AS well, count(*) FILTER (WHERE error_class IS NOT NULL) AS badly
    FROM phantoms.attempts
    WHERE finished_at > now() - make_interval(secs => {SLICES * SLICE_SECONDS}) AND provider IS NOT NULL
    GROUP BY 1, 2
    """
)
_COUNTS = text(
    """
    SELECT w.stage, (SELECT count(*) FROM phantoms.stages s WHERE s.stage = w.stage AND s.state IN ('ready', 'deferred')) AS waiting
    FROM unnest(CAST(:stages AS text[])) AS w(stage)
    """
)
_WAITING = text(
    """
    SELECT v.key, v.title, n.stage, n.retry_at, n.reason FROM unnest(CAST(:stages AS text[])) AS w(stage) CROSS JOIN LATERAL (
        SELECT s.video_id, s.stage, s.retry_at, s.reason FROM phantoms.stages s
        WHERE s.stage = w.stage AND s.state = 'deferred' ORDER BY s.retry_at LIMIT :most
    ) n JOIN phantoms.videos v ON v.id = n.video_id
    ORDER BY n.retry_at LIMIT :most
    """
)


@dataclass(frozen=True)
class Slice:
    """The attempts that ended in one period of five minutes: successes (`well`) and errors (`badly`)."""

    well: int = 0
    badly: int = 0


@dataclass(frozen=True)
class Waiter:
    """A stage of a video that waits until `retry_at`, and the reason."""

    key: str
    title: str
    stage: str
    retry_at: datetime | None
    reason: str | None


class ProviderTraffic:
    """Reads attempts and waiting stages by provider."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def last_hour(self) -> Mapping[str, tuple[Slice, ...]]:
        """By provider, twelve slices of five minutes, the oldest first. Providers without an attempt are left out."""
        found: defaultdict[str, list[Slice]] = defaultdict(lambda: [Slice()] * SLICES)
        with reading(self._engine).connect() as connection:
            for provider, number, well, badly in connection.execute(_HOUR):
                if 0 <= number < SLICES:
                    found[provider][SLICES - 1 - number] = Slice(well, badly)
        return {provider: tuple(slices) for provider, slices in found.items()}

    def counts(self, stages: Sequence[str]) -> Mapping[str, int]:
        """How many videos wait in each of these stages, for any reason."""
        with reading(self._engine).connect() as connection:
            return {row.stage: row.waiting for row in connection.execute(_COUNTS, {"stages": list(stages)})}

    def waiting(self, stages: Sequence[str], *, most: int = 20) -> list[Waiter]:
        """The videos of these stages with the earliest retry times."""
        with reading(self._engine).connect() as connection:
            rows = connection.execute(_WAITING, {"stages": list(stages), "most": most}).mappings()
            return [Waiter(**row) for row in rows]
