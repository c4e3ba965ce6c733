"""TikTok: a ledger that is behind, and a storm of faults. `test_publication_kills` kills the process at every step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from phantoms_dagster.domain.errors import NotYet, Transient, Unknown
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.platforms.tiktok import chunks as tiktok_chunks
from phantoms_dagster.production.publication import publish
from phantoms_dagster.sandbox.tiktok import state as tiktok_state
from phantoms_dagster_tests.contract.publishing_kit import FakeJournal
from phantoms_dagster_tests.contract.tiktok_world import World, a_world

KB = 1_000
SIZE = 150 * KB + 7  # three chunks
SAVES = 6


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiktok_chunks, "ONE_CHUNK_BYTES", 80 * KB)
    monkeypatch.setattr(tiktok_chunks, "CHUNK_BYTES", 50 * KB)
    monkeypatch.setattr(tiktok_state, "MIN_CHUNK_BYTES", 50 * KB)


def assert_posted_once(world: World, journal: FakeJournal, sha256: str) -> None:
    assert [post["sha256"] for post in world.posts] == [sha256]
    assert journal.record.state is PostState.CONFIRMED
    assert journal.record.remote_id == world.posts[0]["remote_id"]


@pytest.mark.parametrize("number", range(SAVES))
async def test_a_journal_that_lost_its_last_step_to_a_lagging_replica_still_posts_once(tmp_path: Path, number: int) -> None:
    """A runner that resumes from an earlier committed step of the same slot reads TikTok's state before it sends."""
    async with a_world(tmp_path) as world:
        job, journal = world.job(SIZE), world.journal()
        await publish(world.publisher(), job, journal)
        older = world.journal()
        older.record = replace(journal.saves[number])
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
                    await publish(world.publisher(), job, journal)
                    break
                except (NotYet, Transient, Unknown):
                    world.sandbox.advance(1)
            journals.append(journal)
        assert [j.record.remote_id for j in journals] == [post["remote_id"] for post in world.posts]
        assert len(world.posts) == len(journals)
