"""Adds extras such as caption tracks to published posts. `domain.post_extras` decides when a try follows.

Each try is saved before its request is sent. So a process that dies leaves an extra that is tried again, with the knowledge that it
may be there already, and of two processes only one tries.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from phantoms_dagster.domain.errors import Disconnected, NotFound, NotYet, PhantomsError, Throttled
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, ExtraAdder, ExtraJob, MediaStore
from phantoms_dagster.domain.post_extras import ExtraOutcome, ExtraState, PendingExtra, after_failure
from phantoms_dagster.domain.subtitles import srt

MOST_AT_ONCE = 50


class PendingExtras(Protocol):
    """The table of extras."""

    def due(self, sandboxed: Collection[str], *, most: int) -> Sequence[PendingExtra]:
        """Extras that must be tried now, the longest waiting first. `sandboxed`: the platforms that use the sandbox now."""
        ...

    def begin(self, extra: PendingExtra) -> datetime | None:
        """Save that a request for it may be sent from now on. Returns until when the try lasts.

        None: another process has tried it since it was read, or its post is no longer there.
        """
        ...

    def finish(self, extra: PendingExtra, outcome: ExtraOutcome, lasts_until: datetime) -> bool:
        """Save the outcome of the try. False: it lasted too long, and another process has taken over."""
        ...


@dataclass
class ExtrasRound:
    """The result of one round: the extras with what was added, or with why they were refused or have to wait."""

    added: list[tuple[PendingExtra, str]] = field(default_factory=list)
    refused: list[tuple[PendingExtra, str]] = field(default_factory=list)
    waiting: list[tuple[PendingExtra, str]] = field(default_factory=list)

    def of(self, state: ExtraState) -> list[tuple[PendingExtra, str]]:
        """The list for that outcome."""
        return {"added": self.added, "refused": self.refused, "waiting": self.waiting}[state]


@dataclass(frozen=True)
class Adding:
    """Everything that a round uses."""

    extras: PendingExtras
    adders: Mapping[Platform, ExtraAdder]
    media: MediaStore
    clock: Clock

    async def round(self, done: ExtrasRound, *, sandboxed: Collection[str]) -> None:
        """Try every extra that is due and add the results to `done`. Accounts run concurrently."""
        groups: defaultdict[tuple[Platform, str], list[PendingExtra]] = defaultdict(list)
        for extra in self.extras.due(sandboxed, most=MOST_AT_ONCE):
            groups[extra.platform, extra.account].append(extra)
        async with asyncio.TaskGroup() as tasks:
            for group in groups.values():
                tasks.create_task(self._of_account(group, done))

    async def _of_account(self, group: Sequence[PendingExtra], done: ExtrasRound) -> None:
        for extra in group:
            lasts_until = self.extras.begin(extra)
            if lasts_until is None:
                continue
            stops = False
            try:
                outcome = ExtraOutcome("added", await self._add(extra), extra.tries + 1)
            except PhantomsError as error:
                outcome = after_failure(error, extra, self.clock.now())
                # The account's other extras would fail in the same way.
                stops = isinstance(error, Disconnected | Throttled | NotYet)
            if self.extras.finish(extra, outcome, lasts_until):
                done.of(outcome.state).append((extra, outcome.detail))
            if stops:
                return

    async def _add(self, extra: PendingExtra) -> str:
        """Add the extra and return what was added. Raises the platform's errors, and NotFound if there is nothing to add."""
        adder = self.adders.get(extra.platform)
        if adder is None:
            raise NotFound(f"{extra.platform.title} takes no {extra.name} after the publication")
        if not extra.current:
            raise NotFound("the video was made again after it was posted, so the files of the post are gone")
        subtitles = srt(extra.sentences)
        if extra.name == "captions" and not subtitles:
            raise NotFound("the video has no spoken sentences")
        picture: Path | None = None
        if extra.name == "thumbnail":
            if extra.picture is None:
                raise NotFound("the video has no picture")
            picture = await self.media.local(extra.picture)
        job = ExtraJob(
            name=extra.name,
            account=extra.account,
            remote_id=extra.remote_id,
            marker=extra.marker,
            language=extra.language,
            subtitles=subtitles,
            picture=picture,
            again=extra.tries > 0,
        )
        return await adder.add(job)
