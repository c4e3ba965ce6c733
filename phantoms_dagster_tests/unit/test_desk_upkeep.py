"""What a desk repeats: it survives errors of any kind, and ends at once."""

from __future__ import annotations

import asyncio
import logging

import pytest

from phantoms_dagster.desk import upkeep
from phantoms_dagster.domain.errors import InvalidInput, StoreAway


async def test_no_error_ends_what_is_repeated(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An error from outside the database once ended the task silently, and decisions waited for the next desk."""
    monkeypatch.setattr(upkeep, "AWAY_SECONDS", 0.0)
    outcomes: list[Exception | None] = [InvalidInput("nonsense"), StoreAway("refused"), StoreAway("refused"), None, None]
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def look() -> float:
        if (error := outcomes.pop(0)) is not None:
            raise error
        if not outcomes:
            loop.call_soon_threadsafe(done.set)
            return 60.0
        return 0.0

    caplog.set_level(logging.INFO, logger=upkeep.__name__)
    async with upkeep.run_repeatedly(look, "commit decisions"):
        await asyncio.wait_for(done.wait(), 30)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "commit decisions: failed; trying again",
        "commit decisions: waiting, PostgreSQL does not answer (PostgreSQL is away: refused)",
        "commit decisions: PostgreSQL answers again",
    ]
