"""The events that a stage's step writes to Dagster while it runs: a materialization for each video within a second of completion.

`metadata` has the contents of a materialization; `stage_step` ends the step.
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

# A batch costs as much as a dozen single events. Nobody who watches the page notices a second.
FLUSH_SECONDS = 1.0
# With these results a stage is settled: it waits for nothing, and nothing will ever be made.
SETTLED = frozenset({NOT_WANTED, DISCARDED})


class StepEvents:
    """The events of one step. `note` is called on the event loop; `flush` from any one thread at a time."""

    def __init__(self, context: dg.AssetExecutionContext, stage: Stage, media_files: MediaFiles) -> None:
        self._context = context
        self._key = dg.AssetKey(stage.slug)
        self._media_files = media_files
        self._stamps = Stamps()
        # A deque, because both ends may be used from two threads at once.
        self._waiting: deque[tuple[Result, float]] = deque()
        self._lock = threading.Lock()

    def note(self, result: Result) -> None:
        """Queue a video that is done now."""
        self._waiting.append((result, time.time()))

    def flush(self) -> None:
        """Write everything that was queued. On an error it stays queued."""
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
        """Write the queue once a second while the block runs. The caller makes the last `flush`.

        After a failed write no more are tried: the last `flush` writes everything or raises. So an error of the stage itself comes
        first.
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
        """Note on the partition why nothing was made. `shown` is the output that a person should decide on.

        A settled partition gets a materialization, which makes it green. So does one in a backfill (`settle`), because Dagster
        marks a backfill as failed when a partition stays grey. Any other gets an observation, which does not change its state.
        """
        entries = metadata.of_nothing(result, shown, self._media_files)
        event: AssetEvent
        if settle or result.error_class in SETTLED:
            event = dg.AssetMaterialization(self._key, partition=result.key, metadata=entries)
        else:
            event = dg.AssetObservation(self._key, partition=result.key, metadata=entries)
        log_events(self._context, [event], stamps=self._stamps)
