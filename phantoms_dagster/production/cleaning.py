"""Cleaning: deletes files of videos that were retired a while ago, as the policy says. Files that a live video needs stay.

`retirement` decides which videos are retired, and when.
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
# A file added within this time stays, because the row that needs it may not be written yet.
UNUSED_SECONDS = 3_600.0
AT_ONCE = 16


class Cleaning(Protocol):
    """Stages whose files may be deleted. Their videos' rows are locked, so that no video is restored meanwhile."""

    @property
    def stages(self) -> Sequence[StageFiles]:
        """The stages to clean."""
        ...

    @property
    def shared(self) -> Collection[MediaFile]:
        """Their files that something else also needs."""
        ...

    def cleaned(self) -> None:
        """Record that their files were cleaned."""
        ...


class CleaningStore(Protocol):
    """The table of stages, as cleaning uses it."""

    def cleaning(self, stages: Sequence[str], before: datetime, most: int) -> AbstractContextManager[Cleaning]:
        """Lock and return these stages of at most `most` videos that were retired before `before` and not cleaned since.

        Leaving the block commits everything. An exception rolls everything back.
        """
        ...


@dataclass(frozen=True)
class CleaningReport:
    """The result of one night. `size`: bytes deleted. `kept`: the number of files that something else needs.

    `more`: there may be more videos to clean.
    """

    videos: int = 0
    files: int = 0
    size: int = 0
    kept: int = 0
    more: bool = False


def stages_that_go(policy: Policy) -> tuple[str, ...]:
    """The stages whose files the policy deletes."""
    return tuple(stage.name for stage in STAGES.values() if policy not in stage.kept_by)


async def clean(
    retirees: CleaningStore,
    media: MediaStore,
    policy: Policy,
    *,
    before: datetime,
    most: int = MOST_A_NIGHT,
    unused_seconds: float = UNUSED_SECONDS,
) -> CleaningReport:
    """Delete the files that the policy does not keep, of at most `most` videos that were retired before `before`.

    A file added within the last `unused_seconds` counts as needed and stays.

    Files are deleted before that is recorded. After a crash in between they are deleted again, which is harmless.
    """
    night = CleaningReport()
    while (stages := stages_that_go(policy)) and night.videos < most:
        with retirees.cleaning(stages, before, min(BATCH, most - night.videos)) as batch:
            if not batch.stages:
                return night
            files = {file for made in batch.stages for file in made.files}
            going = files - set(batch.shared)
            going -= await _remove(media, going, unused_seconds)
            batch.cleaned()
        night = CleaningReport(
            videos=night.videos + len({made.video_id for made in batch.stages}),
            files=night.files + len(going),
            size=night.size + sum(file.size for file in going),
            kept=night.kept + len(files) - len(going),
            more=night.videos + len({made.video_id for made in batch.stages}) >= most,
        )
    return night


async def _remove(media: MediaStore, files: Collection[MediaFile], unused_seconds: float) -> set[MediaFile]:
    """Remove the files. Returns those that stay because they were added recently.

    After the first error no further removal starts. Running removals are awaited, because a file must not be deleted after the
    caller has released its locks on the rows that name it.
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
        if result is not None:  # the first error is enough to tell why the store is unavailable
            raise result
    return stay
