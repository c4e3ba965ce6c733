"""TikTok: wherever the process dies or an answer is lost, there is exactly one post and the journal knows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from phantoms_dagster.domain.errors import NotYet, Transient, Unknown
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.providers import tiktok_chunks
from phantoms_dagster_tests.contract.tiktok_world import MB, FakeJournal, Killed, World, a_world

# One chunk: creator_info, init, PUT, status. Three chunks: two PUTs more, and a save after each of these.
SIZES = {"one chunk": (20_000, 4, 3), "three chunks": (15 * MB + 7, 6, 5)}


class KillingTransport(httpx.AsyncBaseTransport):
    """Dies at the n-th request: before it is sent, or when the answer has come but nobody has seen it."""

    def __init__(self) -> None:
        self._real = httpx.AsyncHTTPTransport()
        self.kill: tuple[str, int] | None = None
        self.sent = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        number, self.sent = self.sent, self.sent + 1
        if self.kill == ("before", number):
            raise Killed
        response = await self._real.handle_async_request(request)
        if self.kill == ("after", number):
            await response.aread()
            await response.aclose()
            raise Killed
        return response

    async def aclose(self) -> None:
        await self._real.aclose()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiktok_chunks, "ONE_CHUNK_BYTES", 8 * MB)
    monkeypatch.setattr(tiktok_chunks, "CHUNK_BYTES", 5 * MB)


@asynccontextmanager
async def a_killing_world(folder: Path) -> AsyncIterator[tuple[World, KillingTransport]]:
    transport = KillingTransport()
    async with a_world(folder, transport=transport) as world:
        yield world, transport


def assert_posted_once(world: World, journal: FakeJournal, sha256: str) -> None:
    assert [post["sha256"] for post in world.posts] == [sha256]
    assert journal.record.state is PostState.PUBLISHED
    assert journal.record.remote_id == world.posts[0]["remote_id"]


@pytest.mark.parametrize("chunks", SIZES)
async def test_the_kill_tests_reach_every_request_and_every_save(tmp_path: Path, chunks: str) -> None:
    size, requests, saves = SIZES[chunks]
    async with a_killing_world(tmp_path) as (world, transport):
        journal = world.journal()
        await world.publisher().publish(world.job(size), journal)
        assert (transport.sent, len(journal.saves)) == (requests, saves)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("chunks", "number"), [(chunks, n) for chunks, (_, many, _) in SIZES.items() for n in range(many)])
async def test_a_process_killed_at_a_request_has_posted_once_when_it_is_resumed(
    tmp_path: Path, chunks: str, number: int, moment: str
) -> None:
    async with a_killing_world(tmp_path) as (world, transport):
        job, journal = world.job(SIZES[chunks][0]), world.journal()
        transport.kill = (moment, number)
        with pytest.raises(Killed):
            await world.publisher().publish(job, journal)
        transport.kill = None
        await world.persist(job, journal)
        assert_posted_once(world, journal, job.sha256)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("chunks", "number"), [(chunks, n) for chunks, (_, _, many) in SIZES.items() for n in range(many)])
async def test_a_process_killed_at_a_save_has_posted_once_when_it_is_resumed(
    tmp_path: Path, chunks: str, number: int, moment: str
) -> None:
    async with a_world(tmp_path) as world:
        job, journal = world.job(SIZES[chunks][0]), world.journal()
        journal.kill = (moment, number)
        with pytest.raises(Killed):
            await world.publisher().publish(job, journal)
        journal.kill = None
        await world.persist(job, journal)
        assert_posted_once(world, journal, job.sha256)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", range(SIZES["three chunks"][1]))
async def test_a_process_killed_and_resumed_after_the_upload_address_died_has_posted_once(
    tmp_path: Path, number: int, moment: str
) -> None:
    async with a_killing_world(tmp_path) as (world, transport):
        job, journal = world.job(SIZES["three chunks"][0]), world.journal()
        transport.kill = (moment, number)
        with pytest.raises(Killed):
            await world.publisher().publish(job, journal)
        transport.kill = None
        world.sandbox.advance(3_700)
        await world.persist(job, journal)
        assert_posted_once(world, journal, job.sha256)


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "malformed", "status"])
@pytest.mark.parametrize("route", ["creator_info", "init", "upload", "status"])
@pytest.mark.parametrize("times", [1, 2])
async def test_an_answer_that_is_lost_or_broken_costs_no_second_post(tmp_path: Path, route: str, kind: str, times: int) -> None:
    async with a_world(tmp_path) as world:
        world.fault(route, kind, times=times)
        job, journal = world.job(SIZES["three chunks"][0]), world.journal()
        await world.persist(job, journal)
        assert_posted_once(world, journal, job.sha256)


@pytest.mark.parametrize("number", range(SIZES["three chunks"][2]))
async def test_a_journal_that_lost_its_last_step_to_a_lagging_replica_still_posts_once(tmp_path: Path, number: int) -> None:
    """A runner that resumes from an earlier committed step of the same slot reads TikTok's state before it sends."""
    async with a_world(tmp_path) as world:
        job, journal = world.job(SIZES["three chunks"][0]), world.journal()
        await world.publisher().publish(job, journal)
        older = world.journal()
        older._record = replace(journal.saves[number])
        await world.persist(job, older)
        assert_posted_once(world, older, job.sha256)


@pytest.mark.parametrize("seed", range(6))
async def test_under_a_storm_of_faults_every_job_is_posted_once(tmp_path: Path, seed: int) -> None:
    async with a_world(tmp_path) as world:
        world.sandbox.random.seed(seed)
        for kind, probability in (("drop_after", 0.25), ("drop_before", 0.2), ("status", 0.2), ("malformed", 0.1)):
            world.fault("*", kind, probability=probability, times=None)
        journals = []
        for number in range(4):
            job, journal = world.job(20_000 + number), world.journal()
            for _ in range(200):
                try:
                    await world.publisher().publish(job, journal)
                    break
                except (NotYet, Transient, Unknown):
                    world.sandbox.advance(1)
            journals.append(journal)
        assert [j.record.remote_id for j in journals] == [post["remote_id"] for post in world.posts]
        assert len(world.posts) == len(journals)
