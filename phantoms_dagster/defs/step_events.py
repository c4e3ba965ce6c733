"""What a stage's step tells Dagster while it runs: a materialization for each video, within a second of its being done.

Which words and pictures a materialization has is decided in `metadata`; how a step ends, in `stage_step`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dagster as dg

from phantoms_dagster.defs import metadata
from phantoms_dagster.defs.events import AssetEvent, Stamps, log_events, log_materializations
from phantoms_dagster.domain.claims import DISCARDED, NOT_WANTED, Result
from phantoms_dagster.domain.models import StageOutput
from phantoms_dagster.domain.stages import Stage
from phantoms_dagster.wiring.media import MediaFiles

# A batch costs as much as a dozen events. Who watches the page does not notice a second.
FLUSH_SECONDS = 1.0
# A stage of a video that ends so is settled: no machine and no person is waited for, and nothing will ever be made.
SETTLED = frozenset({NOT_WANTED, DISCARDED})


class StepEvents:
    """The events of one step. `note` is called on the event loop; `flush` from any one thread at a time."""

    def __init__(self, context: dg.AssetExecutionContext, stage: Stage, media_files: MediaFiles) -> None:
        self._context = context
        self._key = dg.AssetKey(stage.slug)
        self._media_files = media_files
        self._stamps = Stamps()
        # Its ends may be used from two threads at once.
        self._waiting: deque[tuple[Result, float]] = deque()
        self._lock = threading.Lock()

    def note(self, result: Result) -> None:
        """Remember a video that is done now."""
        self._waiting.append((result, time.time()))

    def flush(self) -> None:
        """Write what was noted since the last time. When that fails, all of it is still noted."""
        with self._lock:
            noted = [self._waiting.popleft() for _ in range(len(self._waiting))]
            try:
                entries = {result.key: metadata.of_result(result, self._media_files) for result, _ in noted}
                at = {result.key: when for result, when in noted}
                if entries:
                    log_materializations(self._context, self._key, entries, stamps=self._stamps, at=at)
            except BaseException:
                self._waiting.extendleft(reversed(noted))
                raise

    @asynccontextmanager
    async def flushed_now_and_then(self) -> AsyncIterator[None]:
        """While this is open, what is noted is written once a second. What is left is for a last `flush`.

        When a write fails, no more are tried: the last `flush` writes everything, or raises. The stage's own error goes first.
        """

        async def again_and_again() -> None:
            while True:
                await asyncio.sleep(FLUSH_SECONDS)
                if self._waiting:
                    await asyncio.to_thread(self.flush)

        writer = asyncio.create_task(again_and_again())
        try:
            yield
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    def explain(self, result: Result, *, settle: bool, shown: StageOutput | None = None) -> None:
        """Say on the partition why there is nothing to see. `shown`: what a person would decide about.

        A note makes it green: it is settled, or belongs to a backfill (`settle`), which Dagster calls failed when one of its
        partitions stays grey. Otherwise an observation leaves it as it is.
        """
        entries = metadata.of_nothing(result, shown, self._media_files)
        event: AssetEvent
        if settle or result.error_class in SETTLED:
            event = dg.AssetMaterialization(self._key, partition=result.key, metadata=entries)
        else:
            event = dg.AssetObservation(self._key, partition=result.key, metadata=entries)
        log_events(self._context, [event], stamps=self._stamps)
