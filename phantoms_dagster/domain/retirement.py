"""What is known of a video and of open runs when somebody asks whether it may be retired. The answer belongs in `production`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from phantoms_dagster.domain.models import MediaFile
from phantoms_dagster.domain.stages import PostState, StageState


@dataclass(frozen=True)
class RetirementCandidate:
    """Where a video stands. `posts`: those that are out of our hands or in doubt, by platform.

    `ended_at` is when its last stage ended, its last dead letter was discarded or its partition was added, whichever is
    latest: a video that was taken back has its days before it again.
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
    """What open runs and backfills work on: partition keys, and ranges with both their ends.

    `unclear` names those of which nobody can tell.
    """

    keys: frozenset[str] = frozenset()
    ranges: frozenset[tuple[str, str]] = frozenset()
    unclear: tuple[str, ...] = ()


@dataclass(frozen=True)
class StageFiles:
    """The files that one stage of a video has made."""

    video_id: int
    key: str
    stage: str
    files: Sequence[MediaFile]
