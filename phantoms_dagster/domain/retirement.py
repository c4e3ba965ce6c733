"""What retirement knows about a video and about open runs. `production.retirement` decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from phantoms_dagster.domain.models import MediaFile
from phantoms_dagster.domain.stages import PostState, StageState


@dataclass(frozen=True)
class RetirementCandidate:
    """A video that may be retired. `posts`: its posts that are published or in doubt, by platform.

    `ended_at`: the latest of when its last stage ended, its last dead letter was discarded and its partition was added. A video
    that was restored therefore gets its full time again.
    """

    id: int
    key: str
    states: Mapping[str, StageState]
    posts: Mapping[str, PostState]
    ended_at: datetime | None
    registered: bool
    retired_at: datetime | None


@dataclass(frozen=True)
class InFlight:
    """What open runs and backfills work on: partition keys, and ranges including both ends.

    `unclear` names the runs and backfills whose partitions cannot be determined.
    """

    keys: frozenset[str] = frozenset()
    ranges: frozenset[tuple[str, str]] = frozenset()
    unclear: tuple[str, ...] = ()


@dataclass(frozen=True)
class StageFiles:
    """The files that one stage of a video made."""

    video_id: int
    key: str
    stage: str
    files: Sequence[MediaFile]
