"""The events of a step: what a failed write leaves behind, and that no event is written twice."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from unittest.mock import Mock

import pytest

from phantoms_dagster.defs import step_events
from phantoms_dagster.domain.claims import Result
from phantoms_dagster.domain.stages import stage


class Log:
    """Takes events, or fails as Dagster's storage does while PostgreSQL is away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self.told: list[str] = []
        self.away = False
        self.tried = asyncio.Event()
        monkeypatch.setattr(step_events, "log_materializations", self._log)
        monkeypatch.setattr(
            "phantoms_dagster.defs.step_events.metadata.of_result", lambda result, media_files: {"video": result.key}
        )

    def _log(self, context: object, asset_key: object, entries: Mapping[str, Any], **more: object) -> None:
        if self.away:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self.tried.set)
            raise ConnectionError("the storage is away")
        self.told += entries


def events() -> step_events.StepEvents:
    return step_events.StepEvents(Mock(), stage("script"), Mock())


def test_what_could_not_be_written_is_written_with_the_next_in_its_order_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    log, told = Log(monkeypatch), events()
    told.note(Result("a", "done"))
    told.note(Result("b", "done"))
    log.away = True
    with pytest.raises(ConnectionError):
        told.flush()
    log.away = False
    told.note(Result("c", "done"))
    told.flush()
    told.flush()
    assert log.told == ["a", "b", "c"]


async def test_a_write_that_fails_on_the_way_neither_hides_the_stages_own_error_nor_loses_an_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, told = Log(monkeypatch, asyncio.get_running_loop()), events()
    monkeypatch.setattr(step_events, "FLUSH_SECONDS", 0.01)
    log.away = True

    async def stage_that_fails() -> None:
        async with told.flushed_now_and_then():
            told.note(Result("a", "done"))
            await asyncio.wait_for(log.tried.wait(), 60)
            raise KeyError("its own")

    with pytest.raises(KeyError, match="its own"):
        await stage_that_fails()
    log.away = False
    told.flush()
    assert log.told == ["a"]
