"""The outage of `phantoms demo --faults` against the sandbox: which calls it makes, when, and what it reports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from phantoms_dagster.cli.demo.outage import DemoOutage
from phantoms_dagster.resilience.breakers.breaker import Transition
from phantoms_dagster_tests.sandbox_thread import Running, sandbox_thread

BEGIN = datetime(2026, 11, 26, 12, 1, 3, tzinfo=UTC)
STATUS = "shotstack/edit/v1/render/00000000-0000-0000-0000-000000000000"


@dataclass
class World:
    sandbox: Running
    at: datetime = BEGIN
    history: list[Transition] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.outage = DemoOutage(self.sandbox.url, lambda: self.history, now=lambda: self.at)

    def after(self, seconds: float) -> datetime:
        return BEGIN + timedelta(seconds=seconds)

    def change(self, seconds: float, old: str, new: str, why: str) -> None:
        self.history.insert(0, Transition(self.after(seconds), old, new, why))

    def look(self, seconds: float, *, submitted: bool = True, waiting: int = 3) -> list[str]:
        self.at = self.after(seconds)
        return self.outage.look(submitted=submitted, waiting=waiting)

    def shown(self) -> str:
        return " / ".join(words for words, _ in self.outage.sentences(3))

    @property
    def answers(self) -> bool:
        answer = httpx.get(f"{self.sandbox.url}/{STATUS}", headers={"x-api-key": "sandbox"}, trust_env=False)
        assert answer.status_code in (404, 503)
        return answer.status_code == 404


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with sandbox_thread(tmp_path) as running:
        yield World(running)


def test_the_render_api_dies_only_when_every_video_is_ordered_and_one_is_not_there_yet(world: World) -> None:
    assert world.look(0, submitted=False) == []
    assert world.look(0, waiting=0) == []
    assert world.answers
    assert world.outage.report.problems == [
        "the outage did not happen: all videos were finished before the render API could go down"
    ]
    [told] = world.look(0)
    assert "the render API went down; 3 videos wait for their renders" in told
    assert not world.answers


def test_it_is_dead_for_twenty_seconds_and_the_breaker_is_what_redis_says_it_is(world: World) -> None:
    world.change(-60, "closed", "open", "an outage of an earlier demo in this directory")
    world.look(0)
    assert world.look(2) == []
    assert "render API down since" in world.shown()
    assert "3 videos wait, nothing is lost" in world.shown()
    world.change(3, "closed", "open", "too many failures")
    [told] = world.look(3.5)
    assert "its breaker opened" in told
    world.change(8, "open", "half-open", "probe sent")
    world.change(8.1, "half-open", "open", "probe failed")
    assert world.look(9) == []
    assert "1 probe failed" in world.shown()
    assert world.look(19.9) == []
    assert not world.answers
    [told] = world.look(20)
    assert "is back" in told
    assert world.answers
    assert world.outage.down, "nobody calls it before the probe"
    world.change(23, "open", "half-open", "probe sent")
    assert world.look(23) == []
    world.change(23.1, "half-open", "closed", "probe answered")
    [told] = world.look(23.5)
    assert "the videos continue" in told
    assert not world.outage.down
    assert "render API back at" in world.shown()
    report = world.outage.report
    assert report.problems == []
    assert (report.died_at, report.lifted_at) == (BEGIN, world.after(20))
    assert (report.opened_at, report.closed_at) == (world.after(3), world.after(23.1))
    assert (report.probes_failed, report.waited) == (1, 3)
    assert world.look(60, waiting=0) == []


def test_a_breaker_that_stays_shut_or_open_and_a_dead_letter_are_no_proof(world: World) -> None:
    world.look(0)
    world.look(21)
    assert world.outage.report.problems == ["the breaker sandbox/shotstack did not open during the outage"]
    world.change(22, "closed", "open", "too many failures")
    assert not world.outage.down
    world.outage.report.opened_at = world.after(22)
    assert world.outage.report.problems == ["the breaker sandbox/shotstack did not close after the outage"]
    world.outage.report.closed_at, world.outage.report.dead_letters = world.after(30), 2
    assert world.outage.report.problems == ["2 dead letters were written"]


def test_a_fault_that_someone_else_has_set_stays(world: World) -> None:
    httpx.post(f"{world.sandbox.url}/_sandbox/faults", json={"route": "tiktok.*", "status": 500}, trust_env=False)
    world.look(0)
    world.look(20)
    faults = httpx.get(f"{world.sandbox.url}/_sandbox/faults", trust_env=False).json()["faults"]
    assert [fault["route"] for fault in faults] == ["tiktok.*"]
