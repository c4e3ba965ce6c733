"""Cleaning: the files of videos that were retired a while ago go as the policy says. What a live video needs stays.

Which videos are retired, and when, belongs in `retirement`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from phantoms_dagster.domain.models import MediaFile
from phantoms_dagster.domain.ports import MediaStore
from phantoms_dagster.domain.retirement import StageFiles
from phantoms_dagster.domain.stages import STAGES

Policy = Literal["all", "master", "none"]

MOST_A_NIGHT = 5_000
# Videos whose rows are locked together while their files are deleted.
BATCH = 200
# A file that was added within this time stays: the row that needs it may not be written yet.
UNUSED_SECONDS = 3_600.0
AT_ONCE = 16


class Cleaning(Protocol):
    """Stages whose files may go, with their videos' rows locked: nobody takes one back meanwhile."""

    @property
    def stages(self) -> Sequence[StageFiles]:
        """Those stages."""
        ...

    @property
    def shared(self) -> Collection[MediaFile]:
        """Every file of theirs that something else needs, too."""
        ...

    def cleaned(self) -> None:
        """Note that their files were cleaned up."""
        ...


class Retirees(Protocol):
    """The table of stages as cleaning needs it."""

    def cleaning(self, stages: Sequence[str], before: datetime, most: int) -> AbstractContextManager[Cleaning]:
        """These stages of at most so many videos that were retired before that time and not cleaned since the stage ended.

        Everything is committed at the end, or nothing after an exception.
        """
        ...


@dataclass(frozen=True)
class Cleaned:
    """What came of a night. `size` is in bytes; `kept` counts files that something else needs."""

    videos: int = 0
    files: int = 0
    size: int = 0
    kept: int = 0
    more: bool = False


def stages_that_go(policy: Policy) -> tuple[str, ...]:
    """The stages whose files that policy deletes."""
    return tuple(stage.name for stage in STAGES.values() if policy not in stage.kept_by)


async def clean(
    retirees: Retirees,
    media: MediaStore,
    policy: Policy,
    *,
    before: datetime,
    most: int = MOST_A_NIGHT,
    unused_seconds: float = UNUSED_SECONDS,
) -> Cleaned:
    """Delete what the policy does not keep of videos that were retired before that time, of at most so many.

    A file that somebody added within the last `unused_seconds` stays: it counts as needed.

    Files go first and are noted afterwards: a crash between deletes them once more, which does nothing.
    """
    night = Cleaned()
    while (stages := stages_that_go(policy)) and night.videos < most:
        with retirees.cleaning(stages, before, min(BATCH, most - night.videos)) as batch:
            if not batch.stages:
                return night
            files = {file for made in batch.stages for file in made.files}
            going = files - set(batch.shared)
            going -= await _remove(media, going, unused_seconds)
            batch.cleaned()
        night = Cleaned(
            videos=night.videos + len({made.video_id for made in batch.stages}),
            files=night.files + len(going),
            size=night.size + sum(file.size for file in going),
            kept=night.kept + len(files) - len(going),
            more=night.videos + len({made.video_id for made in batch.stages}) >= most,
        )
    return night


async def _remove(media: MediaStore, files: Collection[MediaFile], unused_seconds: float) -> set[MediaFile]:
    """Remove them. The answer is those that stay because somebody added them lately.

    The first error stops what has not begun. What has begun is waited for, because a file must not go after
    the caller has given up its hold on the rows that name it.
    """
    slots = asyncio.Semaphore(AT_ONCE)
    stay: set[MediaFile] = set()
    failed = False

    async def remove(file: MediaFile) -> None:
        nonlocal failed
        async with slots:
            if failed:
                return
            try:
                if not await media.remove(file, unused_seconds=unused_seconds):
                    stay.add(file)
            except Exception:
                failed = True
                raise

    for result in await asyncio.gather(*(remove(file) for file in files), return_exceptions=True):
        if result is not None:  # the store is away: its first word says why, a hundred more do not
            raise result
    return stay
