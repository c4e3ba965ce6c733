"""The clocks of machines may differ: times that are compared with the tables come from the database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from phantoms_dagster.store.engine import async_engine, engine
from phantoms_dagster.wiring import clock as clocks
from phantoms_dagster.wiring.clock import SystemClock

WRONG = timedelta(hours=3)


class Fast(datetime):
    """A machine whose clock is three hours fast."""

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        return datetime.now(UTC) + WRONG


async def test_a_machine_whose_clock_is_wrong_reads_the_databases(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "datetime", Fast)
    for_runs, for_sensors = SystemClock(), SystemClock()
    assert for_runs.now() - datetime.now(UTC) > WRONG / 2
    database = async_engine(database_url)
    try:
        await for_runs.agree_with(database)
    finally:
        await database.dispose()
    sync = engine(database_url)
    try:
        for_sensors.agree_now_and_then(sync)
    finally:
        sync.dispose()
    for clock in (for_runs, for_sensors):
        assert abs(clock.now() - datetime.now(UTC)) < WRONG / 2
