"""Can it post twice? Each platform against its sandbox over HTTP, killed before and after every save and every request.

One ledger, one clock and one kill for all platforms. The sandbox's own ledger tells the truth: exactly one post.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from phantoms_dagster.domain.errors import NotYet, Permanent, Transient, Unknown
from phantoms_dagster.domain.ports import Publisher, PublishJob
from phantoms_dagster.domain.publication import MAY_BE_OUT, NEEDS_PROOF, PostRecord, PublishedPost
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.platforms.tiktok import chunks as tiktok_chunks
from phantoms_dagster.production.publication import publish
from phantoms_dagster.sandbox.core import Fault, Sandbox
from phantoms_dagster_tests.contract import test_instagram, test_youtube, tiktok_world
from phantoms_dagster_tests.contract.publishing_kit import MOMENTS, FakeJournal, Kill, Killed, MortalTransport, SandboxClock, at

MB = 1_000_000


@dataclass
class Platform:
    """A platform's sandbox and a job for it, as every platform's tests have them."""

    sandbox: Sandbox
    transport: MortalTransport
    clock: SandboxClock
    publisher: Callable[[], Publisher]
    job: PublishJob
    forget: Callable[[], None]

    async def publish(self, journal: FakeJournal) -> PublishedPost:
        """One call of the engine, by a process that has just started."""
        return await publish(self.publisher(), self.job, journal)

    async def persist(self, journal: FakeJournal, *, tries: int = 400) -> PublishedPost:
        """Publish as the runner does: again after each death, lost answer and deferral."""
        for _ in range(tries):
            try:
                return await self.publish(journal)
            except Killed:
                self.sandbox.advance(1)
            except (Transient, Unknown, NotYet) as later:
                self.sandbox.advance((later.retry_after or 0.0) + 1.0)
        raise AssertionError(f"not published after {tries} tries: {journal.states[-20:]}")

    def assert_posted_once(self, journal: FakeJournal) -> None:
        posts = [entry for entry in self.sandbox.ledger if entry["kind"] == "post"]
        assert [post["sha256"] for post in posts] == [self.job.sha256]
        assert (journal.record.state, journal.record.remote_id) == (PostState.CONFIRMED, posts[0]["remote_id"])


@asynccontextmanager
async def youtube(folder: Path) -> AsyncIterator[Platform]:
    async with test_youtube.world() as w:
        w.sandbox.config |= {"youtube.inserts_per_day": 1_000, "youtube.units_per_day": 100_000}
        sessions = w.sandbox.state["youtube"].sessions
        yield Platform(w.sandbox, w.transport, w.clock, lambda: w.publisher, test_youtube.make_job(folder), sessions.clear)


@asynccontextmanager
async def tiktok(folder: Path, size: int = 15 * MB + 7) -> AsyncIterator[Platform]:
    transport = MortalTransport()
    async with tiktok_world.a_world(folder, transport=transport) as w:
        yield Platform(w.sandbox, transport, w.clock, w.publisher, w.job(size), lambda: None)


def tiktok_in_one_chunk(folder: Path) -> AbstractAsyncContextManager[Platform]:
    return tiktok(folder, 20_000)


@asynccontextmanager
async def instagram(folder: Path) -> AsyncIterator[Platform]:
    async with test_instagram.standing() as stand:
        stand.sandbox.config["instagram.quota_total"] = 1_000
        job = test_instagram.make_job(folder)
        yield Platform(stand.sandbox, stand.transport, stand.clock, stand.publisher, job, lambda: None)


Opened = Callable[[Path], AbstractAsyncContextManager[Platform]]
# What a clean run costs: requests and saves. A change here is a change of what the platforms are asked.
PLATFORMS: dict[str, tuple[Opened, int, int]] = {
    "youtube": (youtube, 7, 8),
    "tiktok": (tiktok, 6, 6),
    "tiktok in one chunk": (tiktok_in_one_chunk, 4, 4),
    "instagram": (instagram, 7, 7),
}
ROUTES = {
    "youtube": ("youtube.open", "youtube.upload", "youtube.list", "youtube.update"),
    "tiktok": ("tiktok.creator_info", "tiktok.init", "tiktok.upload", "tiktok.status"),
    "instagram": (
        "instagram.quota",
        "instagram.create",
        "instagram.upload",
        "instagram.status",
        "instagram.publish",
        "instagram.read",
    ),
}
STEPS = [
    (name, moment, number)
    for name, (_, requests, saves) in PLATFORMS.items()
    for moment in MOMENTS
    for number in range(1, (saves if moment.endswith("save") else requests) + 1)
]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans of 5 MB, the least that TikTok takes, so that three chunks are no more than 15 MB."""
    monkeypatch.setattr(tiktok_chunks, "ONE_CHUNK_BYTES", 8 * MB)
    monkeypatch.setattr(tiktok_chunks, "CHUNK_BYTES", 5 * MB)


def arm(platform: Platform, journal: FakeJournal, kill: Kill) -> None:
    journal.kill = platform.transport.kill = kill


@pytest.mark.parametrize("name", PLATFORMS)
async def test_a_clean_run_takes_this_many_requests_and_saves(tmp_path: Path, name: str) -> None:
    opened, requests, saves = PLATFORMS[name]
    async with opened(tmp_path) as platform:
        journal = FakeJournal(clock=platform.clock)
        await platform.publish(journal)
        platform.assert_posted_once(journal)
        assert (platform.transport.count, journal.count) == (requests, saves)


@pytest.mark.parametrize(("name", "moment", "number"), STEPS)
async def test_a_process_killed_at_any_save_or_request_has_posted_once_when_it_is_resumed(
    tmp_path: Path, name: str, moment: str, number: int
) -> None:
    async with PLATFORMS[name][0](tmp_path) as platform:
        journal = FakeJournal(clock=platform.clock)
        arm(platform, journal, at(moment, number))
        with pytest.raises(Killed):
            await platform.publish(journal)
        await platform.persist(journal)
        platform.assert_posted_once(journal)


@pytest.mark.parametrize(("name", "moment", "number"), [step for step in STEPS if step[1].startswith("after")])
async def test_a_process_killed_anywhere_and_resumed_after_a_day_has_posted_once(
    tmp_path: Path, name: str, moment: str, number: int
) -> None:
    """YouTube has forgotten its sessions, TikTok's upload addresses are dead and Instagram's containers have expired by then."""
    async with PLATFORMS[name][0](tmp_path) as platform:
        journal = FakeJournal(clock=platform.clock)
        arm(platform, journal, at(moment, number))
        with pytest.raises(Killed):
            await platform.publish(journal)
        platform.sandbox.advance(90_000)
        platform.forget()
        await platform.persist(journal)
        platform.assert_posted_once(journal)


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "malformed", "status"])
@pytest.mark.parametrize(("name", "route"), [(name, route) for name, routes in ROUTES.items() for route in routes])
async def test_an_answer_that_is_lost_or_broken_on_any_route_costs_no_second_post(
    tmp_path: Path, name: str, route: str, kind: str
) -> None:
    async with PLATFORMS[name][0](tmp_path) as platform:
        platform.sandbox.faults.append(Fault(route=route, kind=kind, times=1))
        journal = FakeJournal(clock=platform.clock)
        await platform.persist(journal)
        platform.assert_posted_once(journal)
        assert platform.sandbox.faults[0].hits == 1


@pytest.mark.parametrize("name", PLATFORMS)
@pytest.mark.parametrize("seed", range(5))
async def test_a_process_killed_again_and_again_has_posted_once(tmp_path: Path, name: str, seed: int) -> None:
    chance = random.Random(seed)

    def kill(moment: str, number: int) -> None:
        if chance.random() < 0.15:
            raise Killed(moment)

    async with PLATFORMS[name][0](tmp_path) as platform:
        journal = FakeJournal(clock=platform.clock)
        arm(platform, journal, kill)
        await platform.persist(journal)
        platform.assert_posted_once(journal)


# --- the order itself -----------------------------------------------------------------------------------------------

# By platform: the requests that can make a post public, or the hidden video that becomes it.
DECISIVE: dict[str, Callable[[Any], bool]] = {
    "youtube": lambda request: (
        request.method == "PUT" and ("upload_id" not in str(request.url) or _is_last(request)) and not _asks(request)
    ),
    "tiktok": lambda request: request.method == "PUT" and _is_last(request),
    "tiktok in one chunk": lambda request: request.method == "PUT" and _is_last(request),
    "instagram": lambda request: request.url.path.endswith("/media_publish"),
}


def _asks(request: Any) -> bool:
    return str(request.headers.get("content-range", "")).startswith("bytes */")


def _is_last(request: Any) -> bool:
    """Whether a chunk ends where its file ends."""
    _, _, told = str(request.headers.get("content-range", "")).partition("-")
    end, _, size = told.partition("/")
    return bool(end) and int(end) + 1 == int(size)


@dataclass
class Watch:
    """What the ledger says at each request that decides, and whether it was saved since the last such request."""

    journal: FakeJournal
    decisive: Callable[[Any], bool]
    seen: list[tuple[PostState, int]]

    def __call__(self, transport: MortalTransport) -> Kill:
        def look(moment: str, number: int) -> None:
            if moment == "before send" and self.decisive(transport.requests[-1]):
                self.seen.append((self.journal.record.state, self.journal.count))

        return look


@pytest.mark.parametrize("name", PLATFORMS)
@pytest.mark.parametrize("fault", [None, "drop_before", "drop_after"])
async def test_the_ledger_says_committing_by_a_save_of_its_own_before_each_request_that_decides(
    tmp_path: Path, name: str, fault: str | None
) -> None:
    route = {"youtube": "youtube.update", "tiktok": "tiktok.upload", "instagram": "instagram.publish"}[name.split(maxsplit=1)[0]]
    async with PLATFORMS[name][0](tmp_path) as platform:
        if fault is not None:
            platform.sandbox.faults.append(Fault(route=route, kind=fault, times=1))
        journal = FakeJournal(clock=platform.clock)
        watch = Watch(journal, DECISIVE[name], [])
        platform.transport.kill = watch(platform.transport)
        await platform.persist(journal)
        assert watch.seen
        assert {state for state, _ in watch.seen} == {PostState.COMMITTING}
        counts = [count for _, count in watch.seen]
        assert len(set(counts)) == len(counts), "two requests that decide went out behind one save"


@pytest.mark.parametrize("name", PLATFORMS)
@pytest.mark.parametrize("state", MAY_BE_OUT)
async def test_a_post_that_may_be_out_is_only_read_until_its_platform_proves_that_it_is_not(
    tmp_path: Path, name: str, state: PostState
) -> None:
    """A published post whose ledger stopped at its commit: it is found, and nothing that decides is sent."""
    async with PLATFORMS[name][0](tmp_path) as platform:
        journal = FakeJournal(clock=platform.clock)
        await platform.publish(journal)
        sent = journal.saves[journal.states.index(PostState.PUBLISHED) - 1]
        late = FakeJournal(PostRecord(state, sent.handle, sent.offset, sent.remote_id, attempted_at=sent.attempted_at))
        watch = Watch(late, DECISIVE[name], [])
        platform.transport.kill = watch(platform.transport)
        await platform.persist(late)
        platform.assert_posted_once(late)
        assert watch.seen == []


@pytest.mark.parametrize("name", PLATFORMS)
async def test_a_post_that_an_older_version_let_fail_in_doubt_is_looked_up_when_it_is_replayed(tmp_path: Path, name: str) -> None:
    async with PLATFORMS[name][0](tmp_path) as platform:
        journal = FakeJournal(clock=platform.clock)
        await platform.publish(journal)
        sent = journal.saves[journal.states.index(PostState.PUBLISHED) - 1]
        failed = FakeJournal(PostRecord(PostState.FAILED, sent.handle, sent.offset, sent.remote_id), clock=platform.clock)
        watch = Watch(failed, DECISIVE[name], [])
        platform.transport.kill = watch(platform.transport)
        await platform.persist(failed)
        platform.assert_posted_once(failed)
        assert watch.seen == []
        assert failed.states[:3] == [PostState.INTENT, PostState.OPENED, PostState.UNKNOWN]


@pytest.mark.parametrize("name", PLATFORMS)
async def test_a_post_fails_before_its_commit_and_goes_out_when_it_is_replayed(tmp_path: Path, name: str) -> None:
    async with PLATFORMS[name][0](tmp_path) as platform:
        journal = FakeJournal(clock=platform.clock)
        content = platform.job.file.read_bytes()
        platform.job.file.write_bytes(b"short")
        with pytest.raises(Permanent):
            await platform.publish(journal)
        assert (journal.states, platform.transport.count) == ([PostState.FAILED], 0)
        platform.job.file.write_bytes(content)
        await platform.persist(journal)
        platform.assert_posted_once(journal)


@pytest.mark.parametrize("name", PLATFORMS)
@pytest.mark.parametrize("seed", range(2))
async def test_every_step_back_was_saved_with_the_platforms_own_word(tmp_path: Path, name: str, seed: int) -> None:
    async with PLATFORMS[name][0](tmp_path) as platform:
        platform.sandbox.random.seed(seed)
        for kind, probability in (("drop_after", 0.15), ("drop_before", 0.15), ("status", 0.1), ("malformed", 0.1)):
            platform.sandbox.faults.append(Fault(route="*", kind=kind, probability=probability, times=None))
        journal = FakeJournal(clock=platform.clock)
        await platform.persist(journal)
        platform.assert_posted_once(journal)
        steps = list(zip([PostState.INTENT, *journal.states], journal.states, journal.proofs, strict=False))
        assert all(proof is not None and proof.evidence for before, after, proof in steps if (before, after) in NEEDS_PROOF)
