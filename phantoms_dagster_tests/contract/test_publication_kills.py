"""Can it post twice, can it pay twice? Each platform and each renderer, killed before and after every save and every request.

One ledger, one clock and one kill for all of them. The sandbox's own ledger tells the truth: exactly one post, and no paid render
that is neither the video nor booked as spent.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from phantoms_dagster.domain import paid_job
from phantoms_dagster.domain.errors import NotYet, Permanent, Transient, Unknown
from phantoms_dagster.domain.paid_job import PaidState
from phantoms_dagster.domain.ports import Publisher, PublishJob
from phantoms_dagster.domain.publication import MAY_BE_OUT, NEEDS_PROOF, PostRecord, PublishedPost
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.media import local_renderer
from phantoms_dagster.platforms.tiktok import chunks as tiktok_chunks
from phantoms_dagster.production.publication import publish
from phantoms_dagster.registry.platforms import SPECS
from phantoms_dagster.sandbox.core import Fault, Sandbox
from phantoms_dagster.sandbox.tiktok import state as tiktok_state
from phantoms_dagster_tests.contract import paid_world, test_instagram, test_youtube, tiktok_world, uploadpost_world
from phantoms_dagster_tests.contract.publishing_kit import (
    MOMENTS,
    FakeJournal,
    Kill,
    Killed,
    MortalTransport,
    SandboxClock,
    SandboxTokens,
    at,
)

KB = 1_000


@dataclass
class Posting:
    """A platform's sandbox and a job for it, as every platform's tests have them."""

    sandbox: Sandbox
    transport: MortalTransport
    clock: SandboxClock
    publisher: Callable[[], Publisher]
    job: PublishJob
    forget: Callable[[], None]
    tokens: SandboxTokens | None = None

    def journal(self, record: PostRecord | None = None) -> FakeJournal:
        return FakeJournal(record, clock=self.clock)

    async def carry(self, journal: FakeJournal) -> PublishedPost:
        """One call of the engine, by a process that has just started."""
        return await publish(self.publisher(), self.job, journal)

    def assert_once(self, journal: FakeJournal) -> None:
        posts = [entry for entry in self.sandbox.ledger if entry["kind"] == "post"]
        assert [post["sha256"] for post in posts] == [self.job.sha256]
        assert (journal.record.state, journal.record.remote_id) == (PostState.CONFIRMED, posts[0]["remote_id"])


async def persist(case: Any, journal: Any, *, tries: int = 400) -> None:
    """Carry on as the runner does: again after each death, lost answer and deferral."""
    for _ in range(tries):
        try:
            await case.carry(journal)
        except Killed:
            case.sandbox.advance(1)
        except (Transient, Unknown, NotYet) as later:
            case.sandbox.advance((later.retry_after or 0.0) + 1.0)
        else:
            return
    raise AssertionError(f"not done after {tries} tries: {journal.states[-20:]}")


@asynccontextmanager
async def youtube(folder: Path) -> AsyncIterator[Posting]:
    async with test_youtube.world() as w:
        w.sandbox.config |= {"youtube.inserts_per_day": 1_000, "youtube.units_per_day": 100_000}
        sessions = w.sandbox.state["youtube"].sessions
        yield Posting(w.sandbox, w.transport, w.clock, lambda: w.publisher, test_youtube.make_job(folder), sessions.clear, w.tokens)


@asynccontextmanager
async def tiktok(folder: Path, size: int = 150 * KB + 7) -> AsyncIterator[Posting]:
    transport = MortalTransport()
    async with tiktok_world.a_world(folder, transport=transport) as w:
        yield Posting(w.sandbox, transport, w.clock, w.publisher, w.job(size), lambda: None, w.tokens)


def tiktok_in_one_chunk(folder: Path) -> AbstractAsyncContextManager[Posting]:
    return tiktok(folder, 20_000)


@dataclass
class Drafting(Posting):
    """A draft for the creator's inbox. The creator posts it with our caption, as soon as our side is done."""

    async def carry(self, journal: FakeJournal) -> PublishedPost:
        try:
            return await super().carry(journal)
        except NotYet:
            if journal.record.state is not PostState.HANDED_OVER:
                raise
            tiktok = self.sandbox.state["tiktok"]
            for draft in tiktok.drafts():
                if draft.draft == "waiting":
                    tiktok.finish_draft(draft.publish_id, {"title": self.job.caption})
            return await super().carry(journal)

    def assert_once(self, journal: FakeJournal) -> None:
        super().assert_once(journal)
        assert [entry["sha256"] for entry in self.sandbox.ledger if entry["kind"] == "draft"] == [self.job.sha256]


@asynccontextmanager
async def tiktok_inbox(folder: Path, size: int = 150 * KB + 7) -> AsyncIterator[Drafting]:
    transport = MortalTransport()
    async with tiktok_world.a_world(folder, transport=transport) as w:
        w.sandbox.config["tiktok.pending_shares"] = None
        yield Drafting(w.sandbox, transport, w.clock, w.publisher, w.job(size, route="inbox"), lambda: None, w.tokens)


def tiktok_inbox_in_one_chunk(folder: Path) -> AbstractAsyncContextManager[Posting]:
    return tiktok_inbox(folder, 20_000)


@asynccontextmanager
async def tiktok_gateway(folder: Path, lag: float = 1.0, **config: Any) -> AsyncIterator[Posting]:
    async with uploadpost_world.a_world(folder) as w:
        w.sandbox.config |= {"uploadpost.daily_posts": None, "uploadpost.status_lag_seconds": lag, **config}
        yield Posting(w.sandbox, w.transport, w.clock, w.publisher, w.job(), lambda: None)


def tiktok_gateway_that_fails_at_first(folder: Path) -> AbstractAsyncContextManager[Posting]:
    """The platform takes nothing in the first run of a request. The request that decides here asks for the second one.

    The status shows the first run's end for some time.
    """
    return tiktok_gateway(folder, **{"uploadpost.retryable_runs": 1, "uploadpost.final_seconds": 20.0})


@asynccontextmanager
async def instagram(folder: Path) -> AsyncIterator[Posting]:
    async with test_instagram.standing() as stand:
        stand.sandbox.config["instagram.quota_total"] = 1_000
        job = test_instagram.make_job(folder)
        yield Posting(stand.sandbox, stand.transport, stand.clock, stand.publisher, job, lambda: None, stand.tokens)


def found_world(name: str) -> Any:
    """The module of a platform's own world, or None."""
    module = f"phantoms_dagster_tests.contract.{name}_world"
    return import_module(module) if find_spec(module) is not None else None


Opened = Callable[[Path], AbstractAsyncContextManager[Any]]
# What a clean run costs: requests and saves. A change here is a change of what the platforms are asked.
PLATFORMS: dict[str, tuple[Opened, int, int]] = {
    "youtube": (youtube, 7, 8),
    "tiktok": (tiktok, 6, 6),
    "tiktok in one chunk": (tiktok_in_one_chunk, 4, 4),
    "tiktok inbox": (tiktok_inbox, 6, 7),
    "tiktok inbox in one chunk": (tiktok_inbox_in_one_chunk, 4, 5),
    "tiktok gateway": (tiktok_gateway, 4, 4),
    "tiktok gateway that lags": (partial(tiktok_gateway, lag=45.0), 8, 4),
    "tiktok gateway that fails at first": (tiktok_gateway_that_fails_at_first, 8, 5),
    "instagram": (instagram, 7, 7),
}
RENDERERS: dict[str, tuple[Opened, int, int]] = {
    "shotstack": (paid_world.shotstack, 8, 3),
    "shotstack that finds": (paid_world.findable, 8, 3),
    "local": (paid_world.local, 0, 3),
}
# Other platforms bring theirs: `contract/<name>_world.py`.
WORLDS = {name: world for name in SPECS if name not in PLATFORMS and hasattr(world := found_world(name), "REQUESTS")}
PLATFORMS |= {name: (partial(world.opened, Posting), world.REQUESTS, world.SAVES) for name, world in WORLDS.items()}
CASES = PLATFORMS | RENDERERS
SHOTSTACK = tuple(f"shotstack.{route}" for route in ("upload", "put", "source", "render", "status", "file"))
ROUTES = {
    "youtube": ("youtube.open", "youtube.upload", "youtube.list", "youtube.update"),
    "tiktok": ("tiktok.creator_info", "tiktok.init", "tiktok.upload", "tiktok.status"),
    "tiktok inbox": ("tiktok.inbox_init", "tiktok.upload", "tiktok.status"),
    "tiktok gateway": ("uploadpost.settings", "uploadpost.upload", "uploadpost.status"),
    "instagram": (
        "instagram.quota",
        "instagram.create",
        "instagram.upload",
        "instagram.status",
        "instagram.publish",
        "instagram.read",
    ),
    "shotstack": SHOTSTACK,
    "shotstack that finds": SHOTSTACK,
    **{name: world.ROUTES for name, world in WORLDS.items()},
}
STEPS = [
    (name, moment, number)
    for name, (_, requests, saves) in CASES.items()
    for moment in MOMENTS
    for number in range(1, (saves if moment.endswith("save") else requests) + 1)
]


def test_every_service_is_killed_here() -> None:
    assert {name.split(maxsplit=1)[0] for name in PLATFORMS} == {spec.name for spec in SPECS.values() if spec.remote}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 50 kB on both sides. The real least is 5 MB, which would have each case write and hash a file of 15 MB."""
    monkeypatch.setattr(tiktok_chunks, "ONE_CHUNK_BYTES", 80 * KB)
    monkeypatch.setattr(tiktok_chunks, "CHUNK_BYTES", 50 * KB)
    monkeypatch.setattr(tiktok_state, "MIN_CHUNK_BYTES", 50 * KB)


@pytest.fixture(autouse=True)
def no_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_renderer, "render", paid_world.quick_render)


def arm(case: Any, journal: Any, kill: Kill) -> None:
    journal.kill = case.transport.kill = kill


@pytest.mark.parametrize("name", CASES)
async def test_a_clean_run_takes_this_many_requests_and_saves(tmp_path: Path, name: str) -> None:
    opened, requests, saves = CASES[name]
    async with opened(tmp_path) as case:
        journal = case.journal()
        await case.carry(journal)
        case.assert_once(journal)
        assert (case.transport.count, journal.count) == (requests, saves)


@pytest.mark.parametrize(("name", "moment", "number"), STEPS)
async def test_a_process_killed_at_any_save_or_request_has_posted_once_when_it_is_resumed(
    tmp_path: Path, name: str, moment: str, number: int
) -> None:
    async with CASES[name][0](tmp_path) as case:
        journal = case.journal()
        arm(case, journal, at(moment, number))
        with pytest.raises(Killed):
            await case.carry(journal)
        await persist(case, journal)
        case.assert_once(journal)


@pytest.mark.parametrize(("name", "moment", "number"), [step for step in STEPS if step[1].startswith("after")])
async def test_a_process_killed_anywhere_and_resumed_after_a_day_has_posted_once(
    tmp_path: Path, name: str, moment: str, number: int
) -> None:
    """YouTube has forgotten its sessions, TikTok's upload addresses are dead and Instagram's containers have expired by then."""
    async with CASES[name][0](tmp_path) as case:
        journal = case.journal()
        arm(case, journal, at(moment, number))
        with pytest.raises(Killed):
            await case.carry(journal)
        case.sandbox.advance(90_000)
        case.forget()
        await persist(case, journal)
        case.assert_once(journal)


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "malformed", "status"])
@pytest.mark.parametrize(("name", "route"), [(name, route) for name, routes in ROUTES.items() for route in routes])
async def test_an_answer_that_is_lost_or_broken_on_any_route_costs_no_second_post(
    tmp_path: Path, name: str, route: str, kind: str
) -> None:
    async with CASES[name][0](tmp_path) as case:
        case.sandbox.faults.append(Fault(route=route, kind=kind, times=1))
        journal = case.journal()
        await persist(case, journal)
        case.assert_once(journal)
        assert case.sandbox.faults[0].hits == 1


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(5))
async def test_a_process_killed_again_and_again_has_posted_once(tmp_path: Path, name: str, seed: int) -> None:
    chance = random.Random(seed)

    def kill(moment: str, number: int) -> None:
        if chance.random() < 0.15:
            raise Killed(moment)

    async with CASES[name][0](tmp_path) as case:
        journal = case.journal()
        arm(case, journal, kill)
        await persist(case, journal)
        case.assert_once(journal)


# --- the order itself -----------------------------------------------------------------------------------------------

# By case: the requests that can make a post public, or the hidden video that becomes it, and those that cost money.
DECISIVE: dict[str, Callable[[Any], bool]] = {
    "youtube": lambda request: (
        request.method == "PUT" and ("upload_id" not in str(request.url) or _is_last(request)) and not _asks(request)
    ),
    "tiktok": lambda request: request.method == "PUT" and _is_last(request),
    "tiktok in one chunk": lambda request: request.method == "PUT" and _is_last(request),
    "tiktok inbox": lambda request: request.method == "PUT" and _is_last(request),
    "tiktok inbox in one chunk": lambda request: request.method == "PUT" and _is_last(request),
    "tiktok gateway": lambda request: request.url.path.endswith("/upload"),
    "tiktok gateway that lags": lambda request: request.url.path.endswith("/upload"),
    "tiktok gateway that fails at first": lambda request: request.url.path.endswith("/posts/retry"),
    "instagram": lambda request: request.url.path.endswith("/media_publish"),
    "shotstack": paid_world.bills,
    "shotstack that finds": paid_world.bills,
    **{name: world.decisive for name, world in WORLDS.items()},
}


CHUNKED = ("tiktok", "tiktok inbox")


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

    journal: Any
    decisive: Callable[[Any], bool]
    seen: list[tuple[Any, int]]

    def __call__(self, transport: MortalTransport) -> Kill:
        def look(moment: str, number: int) -> None:
            if moment == "before send" and self.decisive(transport.requests[-1]):
                self.seen.append((self.journal.record.state, self.journal.count))

        return look


def decisive_route(name: str) -> str:
    if name in WORLDS:
        return str(WORLDS[name].COMMITS)
    if name == "tiktok gateway that fails at first":
        return "uploadpost.retry"
    if name.startswith("tiktok gateway"):
        return "uploadpost.upload"
    service = name.split(maxsplit=1)[0]
    routes = {"youtube": "update", "tiktok": "upload", "instagram": "publish", "shotstack": "render"}
    return f"{service}.{routes[service]}"


@pytest.mark.parametrize("name", [name for name in DECISIVE if name not in CHUNKED])  # whose first chunk decides nothing
@pytest.mark.parametrize("fault", ["drop_before", "drop_after"])
async def test_a_request_that_decides_is_unknown_as_soon_as_its_answer_is_lost(tmp_path: Path, name: str, fault: str) -> None:
    async with CASES[name][0](tmp_path) as case:
        case.sandbox.faults.append(Fault(route=decisive_route(name), kind=fault, times=1))
        journal = case.journal()
        with pytest.raises((Unknown, NotYet)):
            await case.carry(journal)
        assert journal.record.state == "unknown"


@pytest.mark.parametrize("name", [name for name in PLATFORMS if name not in CHUNKED])
async def test_a_platform_that_refuses_to_be_asked_leaves_the_post_in_doubt_and_does_not_fail_it(tmp_path: Path, name: str) -> None:
    async with PLATFORMS[name][0](tmp_path) as case:
        case.sandbox.faults.append(Fault(route=decisive_route(name), kind="drop_after", times=1))
        journal = case.journal()
        with pytest.raises((Unknown, NotYet)):
            await case.carry(journal)
        refusal = Fault(route="*", status=400, body='{"truncated": ')
        case.sandbox.faults.append(refusal)
        for _ in range(3):
            with pytest.raises((Unknown, Transient, NotYet)):
                await case.carry(journal)
            case.sandbox.advance(60)
        assert (refusal.hits > 0, journal.record.state) == (True, PostState.UNKNOWN)
        case.sandbox.faults.clear()
        await persist(case, journal)
        case.assert_once(journal)


@pytest.mark.parametrize("name", DECISIVE)
@pytest.mark.parametrize("fault", [None, "drop_before", "drop_after"])
async def test_the_ledger_says_committing_by_a_save_of_its_own_before_each_request_that_decides(
    tmp_path: Path, name: str, fault: str | None
) -> None:
    route = decisive_route(name)
    async with CASES[name][0](tmp_path) as case:
        if fault is not None:
            case.sandbox.faults.append(Fault(route=route, kind=fault, times=1))
        journal = case.journal()
        watch = Watch(journal, DECISIVE[name], [])
        case.transport.kill = watch(case.transport)
        await persist(case, journal)
        assert watch.seen
        assert {state for state, _ in watch.seen} == {PaidState.SENDING if name in RENDERERS else PostState.COMMITTING}
        counts = [count for _, count in watch.seen]
        assert len(set(counts)) == len(counts), "two requests that decide went out behind one save"


@pytest.mark.parametrize("name", PLATFORMS)
@pytest.mark.parametrize("state", MAY_BE_OUT)
async def test_a_post_that_may_be_out_is_only_read_until_its_platform_proves_that_it_is_not(
    tmp_path: Path, name: str, state: PostState
) -> None:
    """A published post whose ledger stopped at its commit: it is found, and nothing that decides is sent."""
    async with PLATFORMS[name][0](tmp_path) as platform:
        journal = platform.journal()
        await platform.carry(journal)
        sent = journal.saves[journal.states.index(PostState.PUBLISHED) - 1]
        late = FakeJournal(PostRecord(state, sent.handle, sent.offset, sent.remote_id, attempted_at=sent.attempted_at))
        watch = Watch(late, DECISIVE[name], [])
        platform.transport.kill = watch(platform.transport)
        await persist(platform, late)
        platform.assert_once(late)
        assert watch.seen == []


@pytest.mark.parametrize("name", PLATFORMS)
async def test_a_post_that_an_older_version_let_fail_in_doubt_is_looked_up_when_it_is_replayed(tmp_path: Path, name: str) -> None:
    async with PLATFORMS[name][0](tmp_path) as platform:
        journal = platform.journal()
        await platform.carry(journal)
        sent = journal.saves[journal.states.index(PostState.PUBLISHED) - 1]
        failed = FakeJournal(PostRecord(PostState.FAILED, sent.handle, sent.offset, sent.remote_id), clock=platform.clock)
        watch = Watch(failed, DECISIVE[name], [])
        platform.transport.kill = watch(platform.transport)
        await persist(platform, failed)
        platform.assert_once(failed)
        assert watch.seen == []
        assert failed.states[:3] == [PostState.INTENT, PostState.OPENED, PostState.UNKNOWN]


@pytest.mark.parametrize("name", PLATFORMS)
async def test_a_post_fails_before_its_commit_and_goes_out_when_it_is_replayed(tmp_path: Path, name: str) -> None:
    async with PLATFORMS[name][0](tmp_path) as platform:
        journal = platform.journal()
        content = platform.job.file.read_bytes()
        platform.job.file.write_bytes(b"short")
        with pytest.raises(Permanent):
            await platform.carry(journal)
        assert (journal.states, platform.transport.count) == ([PostState.FAILED], 0)
        platform.job.file.write_bytes(content)
        await persist(platform, journal)
        platform.assert_once(journal)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(2))
async def test_every_step_back_was_saved_with_the_services_own_word(tmp_path: Path, name: str, seed: int) -> None:
    async with CASES[name][0](tmp_path) as case:
        case.sandbox.random.seed(seed)
        for kind, probability in (("drop_after", 0.15), ("drop_before", 0.15), ("status", 0.1), ("malformed", 0.1)):
            case.sandbox.faults.append(Fault(route="*", kind=kind, probability=probability, times=None))
        journal = case.journal()
        await persist(case, journal)
        case.assert_once(journal)
        steps = zip([journal.states[0], *journal.states], journal.states, journal.proofs, strict=False)
        back = {*NEEDS_PROOF, *paid_job.NEEDS_PROOF, *paid_job.NEEDS_WRITE_OFF}
        assert all(proof is not None and proof.evidence for before, after, proof in steps if (before, after) in back)
