"""Posts to YouTube against the stand-in: whole runs, and every place where a run can be cut. `test_youtube_sandbox`
tests the stand-in's own rules, and `test_youtube_errors` the error table and the metrics."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import httpx_aiohttp
import pytest
from aiohttp.test_utils import TestServer

from phantoms_dagster.domain.errors import NotYet, Permanent, ProviderError, Rejected, Throttled, Transient, Unknown
from phantoms_dagster.domain.models import Platform, Probe
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.domain.publication import PublishedPost
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.platforms.youtube import search as youtube_search
from phantoms_dagster.platforms.youtube.api import seconds_to_quota
from phantoms_dagster.platforms.youtube.publisher import GRANULE, YouTubePublisher
from phantoms_dagster.production.publication import publish
from phantoms_dagster.sandbox.core import Fault, Sandbox, application
from phantoms_dagster.sandbox.youtube.routes import routes
from phantoms_dagster_tests.contract.publishing_kit import (
    FakeJournal,
    Killed,
    MortalTransport,
    SandboxClock,
    SandboxTokens,
)

PROBE = Probe(
    container="mp4", seconds=20, size=1, width=1080, height=1920, fps=30, video_codec="h264", pixel_format="yuv420p",
    bit_rate=1, moov_first=True,
)  # fmt: skip


@dataclass
class World:
    """A sandbox on a real port, a client and a publisher on it."""

    sandbox: Sandbox
    base_url: str
    client: httpx.AsyncClient
    transport: MortalTransport
    clock: SandboxClock
    publisher: YouTubePublisher
    tokens: SandboxTokens
    faults: list[Fault] = field(default_factory=list)

    def entries(self, kind: str) -> list[dict[str, Any]]:
        return [e for e in self.sandbox.ledger if e["kind"] == kind]

    def fault(self, route: str, kind: str, *, after: int = 0, **more: Any) -> None:
        """One fault, once; `after`: let so many matching requests pass first."""
        if after:
            self.sandbox.faults.append(Fault(route=route, kind="latency", times=after))
        self.sandbox.faults.append(Fault(route=route, kind=kind, times=1, **more))

    def forget_sessions(self) -> None:
        self.sandbox.state["youtube"].sessions.clear()


@asynccontextmanager
async def world(*, inner: httpx.AsyncBaseTransport | None = None, seed: int = 1, **publisher: Any) -> AsyncIterator[World]:
    sandbox = Sandbox(seed=seed)
    async with TestServer(application(sandbox, [routes(sandbox)])) as server:
        base_url = str(server.make_url("/")).rstrip("/")
        transport = MortalTransport(inner)
        clock = SandboxClock(sandbox)
        async with httpx.AsyncClient(transport=transport) as client:
            tokens = SandboxTokens()
            options = {"sandbox": True, "chunk_bytes": GRANULE, **publisher}
            made = YouTubePublisher(client=client, base_url=base_url, tokens=tokens, clock=clock, **options)
            yield World(sandbox, base_url, client, transport, clock, made, tokens)


def video_bytes(size: int, seed: int = 1) -> bytes:
    return b"\x00\x00\x00\x18ftypmp42" + random.Random(seed).randbytes(size - 12)


def make_job(folder: Path, *, size: int = 2 * GRANULE + 1_000, marker: str = "attempt-1", **changes: Any) -> PublishJob:
    data = video_bytes(size)
    file = folder / f"{marker}.mp4"
    file.write_bytes(data)
    job = PublishJob(
        video_key="20261122-ocean-7f3a", platform=Platform("youtube"), account="main", marker=marker, file=file, size=size,
        sha256=hashlib.sha256(data).hexdigest(), probe=PROBE, title="Why the sea glows", caption="Tiny lights. #ocean #short",
    )  # fmt: skip
    return replace(job, **changes)


async def publish_until_done(w: World, job: PublishJob, journal: FakeJournal, tries: int = 60) -> PublishedPost:
    """What the runner does: call again after each death, lost answer and deferral."""
    for _ in range(tries):
        try:
            return await publish(w.publisher, job, journal)
        except Killed:
            continue
        except (Transient, Unknown, NotYet) as error:
            w.sandbox.advance(error.retry_after or 1.0)
    raise AssertionError(f"not done after {tries} tries; the journal says {journal.record}")


def assert_posted_once(w: World, job: PublishJob) -> None:
    posts, videos = w.entries("post"), w.entries("youtube.video")
    assert [(p["marker"], p["privacy"], p["sha256"]) for p in posts] == [(job.marker, job.privacy, job.sha256)]
    assert len(videos) == 1


# --- whole runs -----------------------------------------------------------------------------------------------------


async def test_a_video_goes_up_private_in_chunks_and_then_public(tmp_path: Path) -> None:
    async with world() as w:
        job, journal = make_job(tmp_path), FakeJournal()
        post = await publish(w.publisher, job, journal)
        assert_posted_once(w, job)
        fact = w.entries("post")[0]
        assert (fact["account"], fact["title"], fact["caption"], fact["size"]) == ("main", job.title, job.caption, job.size)
        assert w.entries("youtube.video")[0]["privacy"] == "private"
        assert post.url == f"{w.base_url}/watch/{post.remote_id}"
        assert post.published_at.tzinfo is not None
        states = [(r.state, r.offset) for r in journal.saves]
        assert states == [
            (PostState.OPENED, 0),
            (PostState.UPLOADING, GRANULE),
            (PostState.UPLOADING, 2 * GRANULE),
            (PostState.COMMITTING, 2 * GRANULE),
            (PostState.COMMITTING, job.size),
            (PostState.COMMITTING, job.size),
            (PostState.PUBLISHED, job.size),
            (PostState.CONFIRMED, job.size),
        ]
        assert journal.record.remote_id == post.remote_id
        page = await w.client.get(post.url)
        assert page.status_code == 200
        assert job.title in page.text


async def test_the_answered_video_says_that_it_is_synthetic_and_whether_it_is_for_kids(tmp_path: Path) -> None:
    async with world() as w:
        post = await publish(w.publisher, make_job(tmp_path, made_for_kids=True), FakeJournal())
        status = w.sandbox.state["youtube"].videos[post.remote_id].status
        assert status["containsSyntheticMedia"] is True
        assert status["selfDeclaredMadeForKids"] is True


async def test_a_small_file_goes_up_in_one_request_over_the_aiohttp_transport(tmp_path: Path) -> None:
    async with world(inner=httpx_aiohttp.AiohttpTransport(), chunk_bytes=32 * GRANULE) as w:
        job = make_job(tmp_path)
        await publish(w.publisher, job, FakeJournal())
        assert_posted_once(w, job)
        assert w.sandbox.calls["youtube.upload"] == 1


async def test_the_url_of_a_real_post_is_that_of_a_short(tmp_path: Path) -> None:
    async with world(sandbox=False) as w:
        post = await publish(w.publisher, make_job(tmp_path), FakeJournal())
        assert post.url == f"https://www.youtube.com/shorts/{post.remote_id}"


@pytest.mark.parametrize(("privacy", "posts"), [("unlisted", ["unlisted"]), ("private", [])])
async def test_a_post_ends_with_the_privacy_that_was_asked_for(tmp_path: Path, privacy: str, posts: list[str]) -> None:
    async with world() as w:
        journal = FakeJournal()
        await publish(w.publisher, make_job(tmp_path, privacy=privacy), journal)
        assert journal.record.state is PostState.CONFIRMED
        assert [p["privacy"] for p in w.entries("post")] == posts
        assert w.sandbox.state["youtube"].videos[journal.record.remote_id].privacy == privacy


async def test_a_published_post_is_only_read_when_it_is_asked_for_again(tmp_path: Path) -> None:
    async with world() as w:
        job, journal = make_job(tmp_path), FakeJournal()
        first = await publish(w.publisher, job, journal)
        before = dict(w.sandbox.calls)
        again = await publish(w.publisher, job, journal)
        assert again == first
        assert {k: v - before[k] for k, v in w.sandbox.calls.items() if v != before[k]} == {"youtube.list": 1}


async def test_long_processing_defers_the_post_and_it_goes_public_only_afterwards(tmp_path: Path) -> None:
    async with world(max_wait=5) as w:
        w.sandbox.config["youtube.processing_seconds"] = 100
        job, journal = make_job(tmp_path), FakeJournal()
        with pytest.raises(NotYet) as caught:
            await publish(w.publisher, job, journal)
        assert caught.value.retry_after > 0
        assert sum(w.clock.slept) <= 5
        assert w.entries("post") == []
        await publish_until_done(w, job, journal)
        assert_posted_once(w, job)


# --- what a person must look at --------------------------------------------------------------------------------------


async def test_a_video_that_stays_private_needs_no_audit_and_is_not_uploaded_again(tmp_path: Path) -> None:
    async with world() as w:
        w.sandbox.config["youtube.locked_private"] = True
        job, journal = make_job(tmp_path), FakeJournal()
        with pytest.raises(Rejected, match="Check it in YouTube Studio") as caught:
            await publish(w.publisher, job, journal)
        assert "audit" not in str(caught.value)
        assert caught.value.code == "lockedPrivate"
        assert sum(w.clock.slept) < 10  # YouTube said so at once: there is nothing to wait for
        assert w.entries("post") == []
        # The audit is passed and the dead letter replayed: the same video goes public, nothing is uploaded again.
        w.sandbox.config["youtube.locked_private"] = False
        journal.left(PostState.FAILED)
        await publish(w.publisher, job, journal)
        assert_posted_once(w, job)


async def test_a_video_that_policy_rejects_is_never_made_public(tmp_path: Path) -> None:
    async with world() as w:
        w.sandbox.config["youtube.rejection_reason"] = "duplicate"
        with pytest.raises(Rejected, match="duplicate") as caught:
            await publish(w.publisher, make_job(tmp_path), FakeJournal())
        assert caught.value.code == "duplicate"
        assert w.entries("post") == []


async def test_a_file_that_is_not_a_video_is_permanent(tmp_path: Path) -> None:
    async with world() as w:
        job = make_job(tmp_path)
        job.file.write_bytes(b"x" * job.size)
        with pytest.raises(Permanent, match="invalidFile"):
            await publish(w.publisher, job, FakeJournal())
        assert w.entries("post") == []


@pytest.mark.parametrize(
    ("setting", "reason", "kind"),
    [
        *(("failure_reason", reason, Permanent) for reason in ("conversion", "tooSmall", "codec", "uploadAborted")),
        *(("rejection_reason", reason, Rejected) for reason in ("copyright", "duplicate", "termsOfUse", "legal")),
    ],
)
async def test_a_video_that_youtube_will_never_show_says_why(
    tmp_path: Path, setting: str, reason: str, kind: type[ProviderError]
) -> None:
    async with world() as w:
        w.sandbox.config[f"youtube.{setting}"] = reason
        with pytest.raises(kind) as caught:
            await publish(w.publisher, make_job(tmp_path), FakeJournal(clock=w.clock))
        assert caught.value.code == reason
        assert w.entries("post") == []


async def test_a_file_of_another_size_than_approved_is_not_sent(tmp_path: Path) -> None:
    async with world() as w:
        job = make_job(tmp_path)
        with job.file.open("ab") as file:
            file.write(b"more")
        with pytest.raises(Permanent, match="bytes"):
            await publish(w.publisher, job, FakeJournal())
        assert w.sandbox.calls == {}


async def test_an_account_whose_token_is_refused_must_be_reconnected(tmp_path: Path) -> None:
    class Expired:
        async def token(self, platform: Platform, account: str) -> str:
            return "expired"

        async def renewed(self, platform: Platform, account: str, refused: str) -> str | None:
            return None

    async with world() as w:
        publisher = YouTubePublisher(client=w.client, base_url=w.base_url, tokens=Expired(), clock=w.clock)
        with pytest.raises(Permanent, match="reconnect the account") as caught:
            await publish(publisher, make_job(tmp_path), FakeJournal())
        assert "expired" not in caught.value.evidence.model_dump_json()


async def test_a_used_up_quota_waits_for_midnight_in_california_and_the_post_then_goes_out(tmp_path: Path) -> None:
    async with world() as w:
        w.sandbox.config["youtube.inserts_per_day"] = 0
        job, journal = make_job(tmp_path), FakeJournal()
        with pytest.raises(Throttled) as caught:
            await publish(w.publisher, job, journal)
        assert caught.value.code == "quotaExceeded"
        assert caught.value.retry_after is not None
        assert 0 < caught.value.retry_after <= 25 * 3_600
        w.sandbox.config["youtube.inserts_per_day"] = 1
        await publish(w.publisher, job, journal)
        assert_posted_once(w, job)


async def test_a_quota_that_is_reset_some_minutes_late_does_not_cost_a_day(tmp_path: Path) -> None:
    async with world() as w:
        w.sandbox.advance(seconds_to_quota(w.clock.now()) + 12 * 3_600)  # not just before or after midnight
        w.sandbox.config |= {"youtube.inserts_per_day": 1, "youtube.quota_late_seconds": 400}
        await publish(w.publisher, make_job(tmp_path, marker="attempt-0"), FakeJournal(clock=w.clock))
        job, journal = make_job(tmp_path), FakeJournal(clock=w.clock)
        waits: list[float] = []
        while not waits or journal.record.state is not PostState.CONFIRMED:
            try:
                await publish(w.publisher, job, journal)
            except Throttled as error:
                waits.append(error.retry_after or 0)
                w.sandbox.advance(waits[-1])
        assert waits[1:] == [300, 300]
        assert len(w.entries("post")) == 2


async def test_titles_and_descriptions_are_made_to_fit(tmp_path: Path) -> None:
    async with world() as w:
        job = make_job(tmp_path, title="a < b\n" + "x" * 200, caption="日本 " * 2_000 + "<end>")
        await publish(w.publisher, job, FakeJournal())
        fact = w.entries("post")[0]
        assert fact["title"] == "a \u2039 b\u2026"
        assert len(fact["caption"].encode()) <= 5_000
        assert fact["caption"].endswith("日本\u2026")


async def test_session_uris_and_tokens_never_stand_in_errors(tmp_path: Path) -> None:
    async with world() as w:
        journal = FakeJournal()
        w.fault("youtube.upload", "drop_after")
        with pytest.raises(Transient) as caught:
            await publish(w.publisher, make_job(tmp_path), journal)
        secret = str(journal.record.handle["session"]).split("upload_id=")[1]
        text = str(caught.value) + caught.value.evidence.model_dump_json()
        assert secret not in text
        assert "sandbox-main" not in text


# --- cut runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(25))
async def test_a_run_killed_again_and_again_with_sessions_lost_in_between_is_posted_once(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)

    def kill(moment: str, n: int) -> None:
        if chance.random() < 0.04:
            w.forget_sessions()
        if chance.random() < 0.15:
            raise Killed(moment)

    async with world(seed=seed) as w:
        w.sandbox.config.update({"youtube.inserts_per_day": 1_000, "youtube.units_per_day": 100_000})
        job, journal = make_job(tmp_path), FakeJournal()
        w.transport.kill = journal.kill = kill
        await publish_until_done(w, job, journal, tries=400)
        assert_posted_once(w, job)


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "malformed", "status"])
@pytest.mark.parametrize(
    ("route", "after"),
    [
        ("youtube.open", 0),
        ("youtube.upload", 0),
        ("youtube.upload", 2),
        ("youtube.list", 0),
        ("youtube.update", 0),
        ("youtube.list", 1),
    ],
)
async def test_a_lost_answer_anywhere_is_resolved_by_reading(tmp_path: Path, route: str, after: int, kind: str) -> None:
    async with world() as w:
        w.fault(route, kind, after=after)
        job, journal = make_job(tmp_path), FakeJournal()
        await publish_until_done(w, job, journal)
        assert_posted_once(w, job)
        assert sum(f.hits for f in w.sandbox.faults) == after + 1


@pytest.mark.parametrize(("route", "after"), [("youtube.upload", 2), ("youtube.update", 0)])
async def test_a_lost_answer_at_a_commit_point_is_journaled_as_unknown(tmp_path: Path, route: str, after: int) -> None:
    async with world() as w:
        w.fault(route, "drop_after", after=after)
        journal = FakeJournal()
        with pytest.raises(Unknown):
            await publish(w.publisher, make_job(tmp_path), journal)
        assert journal.record.state is PostState.UNKNOWN


async def test_an_upload_cut_in_the_middle_goes_on_from_where_youtube_says(tmp_path: Path) -> None:
    async with world() as w:
        w.fault("youtube.upload", "drop_after")  # the first chunk is kept, its answer is lost: the journal says offset 0
        job, journal = make_job(tmp_path), FakeJournal()
        with pytest.raises(Transient):
            await publish(w.publisher, job, journal)
        assert journal.record.offset == 0
        sent = len(w.transport.requests)
        await publish(w.publisher, job, journal)
        ranges = [r.headers.get("content-range") for r in w.transport.requests[sent:] if "upload_id" in str(r.url)]
        assert ranges[:2] == [f"bytes */{job.size}", f"bytes {GRANULE}-{2 * GRANULE - 1}/{job.size}"]
        assert_posted_once(w, job)


async def test_a_session_lost_before_its_last_byte_is_opened_again_at_once(tmp_path: Path) -> None:
    async with world() as w:
        w.fault("youtube.upload", "drop_after")
        job, journal = make_job(tmp_path), FakeJournal()
        with pytest.raises(Transient):
            await publish(w.publisher, job, journal)
        w.forget_sessions()
        await publish(w.publisher, job, journal)
        assert_posted_once(w, job)
        assert w.sandbox.calls["youtube.open"] == 2
        assert "youtube.playlist" not in w.sandbox.calls


async def test_a_finished_video_whose_session_is_gone_is_found_by_its_file_name(tmp_path: Path) -> None:
    async with world() as w:
        w.sandbox.config["youtube.file_name"] = "slug"
        other = make_job(tmp_path, marker="attempt-0")  # same title, same bytes, another post
        await publish(w.publisher, other, FakeJournal())
        w.sandbox.calls.clear()
        w.fault("youtube.upload", "drop_after", after=2)
        job, journal = make_job(tmp_path), FakeJournal()
        with pytest.raises(Unknown):
            await publish(w.publisher, job, journal)
        w.forget_sessions()
        w.sandbox.advance(1)
        await publish(w.publisher, job, journal)
        assert [p["marker"] for p in w.entries("post")] == ["attempt-0", "attempt-1"]
        assert len(w.entries("youtube.video")) == 2
        assert w.sandbox.calls["youtube.open"] == 1


@pytest.mark.parametrize("name", ["unknown", "videoplayback"])
async def test_a_finished_video_is_found_even_if_youtube_does_not_take_our_file_name(tmp_path: Path, name: str) -> None:
    async with world() as w:
        w.sandbox.config["youtube.file_name"] = name
        w.fault("youtube.upload", "drop_after", after=2)
        job, journal = make_job(tmp_path), FakeJournal(clock=w.clock)
        with pytest.raises(Unknown):
            await publish(w.publisher, job, journal)
        w.forget_sessions()
        await publish_until_done(w, job, journal)
        assert_posted_once(w, job)


async def test_a_video_whose_processing_does_not_end_is_reported_to_a_person_after_a_day(tmp_path: Path) -> None:
    async with world(max_wait=10) as w:
        w.sandbox.config["youtube.processing_seconds"] = 30 * 3_600
        job, journal = make_job(tmp_path), FakeJournal(clock=w.clock)
        with pytest.raises(NotYet):
            await publish(w.publisher, job, journal)
        w.sandbox.advance(25 * 3_600)
        with pytest.raises(Rejected, match="has not finished processing"):
            await publish(w.publisher, job, journal)
        w.sandbox.advance(6 * 3_600)  # it went on, and a person replays the post
        await publish(w.publisher, job, journal)
        assert_posted_once(w, job)


async def test_a_video_whose_processing_failed_is_not_waited_for_although_it_reads_as_uploaded(tmp_path: Path) -> None:
    failed = {"processingStatus": "failed", "processingFailureReason": "transcodeFailed"}
    video = {"id": "x", "status": {"uploadStatus": "uploaded", "privacyStatus": "private"}, "processingDetails": failed}
    async with world() as w:
        w.fault("youtube.list", "status", status=200, body=json.dumps({"items": [video]}))
        with pytest.raises(Permanent, match="transcodeFailed"):
            await publish(w.publisher, make_job(tmp_path), FakeJournal(clock=w.clock))


async def test_a_lost_video_that_youtube_still_processes_is_waited_for(tmp_path: Path) -> None:
    async with world(max_wait=10) as w:
        w.sandbox.config["youtube.processing_seconds"] = 2_000  # past the ten minutes after which absence is believed
        w.fault("youtube.upload", "drop_after", after=2)
        job, journal = make_job(tmp_path), FakeJournal()
        with pytest.raises(Unknown):
            await publish(w.publisher, job, journal)
        w.forget_sessions()
        await publish_until_done(w, job, journal)
        assert_posted_once(w, job)
        assert w.sandbox.calls["youtube.open"] == 1


@pytest.mark.parametrize("earlier_uploads", [0, 1])
async def test_a_video_that_was_never_made_is_uploaded_again_only_after_ten_minutes_of_looking(
    tmp_path: Path, earlier_uploads: int
) -> None:
    async with world() as w:
        for n in range(earlier_uploads):
            await publish(w.publisher, make_job(tmp_path, marker=f"other-{n}", title="Another"), FakeJournal())
        w.fault("youtube.upload", "drop_before", after=2)
        w.sandbox.calls.clear()
        job, journal = make_job(tmp_path), FakeJournal()
        with pytest.raises(Unknown):
            await publish(w.publisher, job, journal)
        w.forget_sessions()
        lost_at = w.sandbox.now()
        while w.sandbox.calls["youtube.open"] == 1:
            asked_at = w.sandbox.now()
            try:
                await publish(w.publisher, job, journal)
            except Unknown as error:
                assert journal.record.state is PostState.UNKNOWN
                w.sandbox.advance(error.retry_after or 1)
        assert asked_at - lost_at >= 599
        assert w.sandbox.calls["youtube.playlist"] >= 10
        mine = [e for e in w.sandbox.ledger if e["marker"] == job.marker]
        assert [e["kind"] for e in mine] == ["youtube.video", "post"]


async def test_a_post_that_failed_in_doubt_is_searched_for_when_it_is_replayed(tmp_path: Path) -> None:
    async with world() as w:
        w.fault("youtube.upload", "drop_after", after=2)
        job, journal = make_job(tmp_path), FakeJournal()
        with pytest.raises(Unknown):
            await publish(w.publisher, job, journal)
        w.forget_sessions()
        w.sandbox.advance(1)
        journal.left(PostState.FAILED)
        await publish(w.publisher, job, journal)
        assert_posted_once(w, job)


async def test_a_refused_last_chunk_ends_the_session_and_the_replay_opens_another(tmp_path: Path) -> None:
    async with world() as w:
        body = '{"error":{"code":403,"message":"no","errors":[{"reason":"quotaExceeded"}]}}'
        w.fault("youtube.upload", "status", after=2, status=403, body=body)
        job, journal = make_job(tmp_path), FakeJournal()
        with pytest.raises(Throttled):
            await publish(w.publisher, job, journal)
        assert (journal.record.state, journal.record.handle) == (PostState.INTENT, {})
        await publish(w.publisher, job, journal)
        assert_posted_once(w, job)


async def test_a_pace_limit_in_the_middle_of_an_upload_keeps_the_session(tmp_path: Path) -> None:
    async with world() as w:
        w.fault("youtube.upload", "status", after=1, status=429, retry_after=7)
        job, journal = make_job(tmp_path), FakeJournal()
        with pytest.raises(Throttled) as caught:
            await publish(w.publisher, job, journal)
        assert caught.value.retry_after == 7
        await publish(w.publisher, job, journal)
        assert w.sandbox.calls["youtube.open"] == 1
        assert_posted_once(w, job)


async def test_a_pace_limit_on_the_question_for_the_progress_keeps_the_session(tmp_path: Path) -> None:
    async with world() as w:
        w.fault("youtube.upload", "drop_after", after=1)
        w.fault("youtube.upload", "status", status=429, retry_after=7)
        job, journal = make_job(tmp_path), FakeJournal()
        for expected in (Transient, Throttled):
            with pytest.raises(expected):
                await publish(w.publisher, job, journal)
        await publish(w.publisher, job, journal)
        assert w.sandbox.calls["youtube.open"] == 1
        assert_posted_once(w, job)


async def test_a_lost_video_is_found_behind_many_later_uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(youtube_search, "MAX_IDS", 2)  # pages of two
    async with world() as w:
        w.fault("youtube.upload", "drop_after", after=2)
        job, journal = make_job(tmp_path), FakeJournal()
        with pytest.raises(Unknown):
            await publish(w.publisher, job, journal)
        w.forget_sessions()
        for n in range(5):
            await publish(w.publisher, make_job(tmp_path, marker=f"later-{n}", size=500), FakeJournal())
        w.sandbox.calls.clear()
        post = await publish(w.publisher, job, journal)
        assert [e["remote_id"] for e in w.sandbox.ledger if e["marker"] == job.marker] == [post.remote_id] * 2
        assert w.sandbox.calls["youtube.playlist"] == 3


async def test_a_file_that_vanished_during_its_upload_is_permanent(tmp_path: Path) -> None:
    async with world() as w:
        w.fault("youtube.upload", "drop_after")
        job, journal = make_job(tmp_path), FakeJournal()
        with pytest.raises(Transient):
            await publish(w.publisher, job, journal)
        job.file.unlink()
        with pytest.raises(Permanent, match="bytes"):
            await publish(w.publisher, job, journal)


async def test_a_video_deleted_by_hand_before_it_was_public_needs_a_person(tmp_path: Path) -> None:
    async with world(max_wait=5) as w:
        w.sandbox.config["youtube.processing_seconds"] = 100
        job, journal = make_job(tmp_path), FakeJournal()
        with pytest.raises(NotYet):
            await publish(w.publisher, job, journal)
        w.sandbox.state["youtube"].videos.clear()
        with pytest.raises(NotYet):  # a list may lag behind
            await publish(w.publisher, job, journal)
        w.sandbox.advance(700)
        with pytest.raises(Rejected, match="no longer exists on YouTube"):
            await publish(w.publisher, job, journal)
        assert w.sandbox.calls["youtube.open"] == 1


async def test_a_video_that_is_processed_for_ten_minutes_costs_few_of_the_days_units(tmp_path: Path) -> None:
    """Looking every two seconds cost 302 of 10,000 units."""
    async with world(max_wait=120) as w:
        w.sandbox.config["youtube.processing_seconds"] = 600
        job, journal = make_job(tmp_path), FakeJournal()
        waits = []
        while True:
            try:
                await publish(w.publisher, job, journal)
                break
            except NotYet as wait:
                waits.append(wait.retry_after)
                await w.clock.sleep(wait.retry_after)
        used = w.sandbox.state["youtube"].quota.used
        assert used["units"] <= 50 + 25  # the change to public, and the looks
        assert min(waits) >= 30
        assert w.sandbox.calls["youtube.list"] <= 25


async def test_every_request_that_writes_the_status_says_the_privacy(tmp_path: Path) -> None:
    """Since 2026-11-02 an upload that does not say it is public at once."""
    async with world() as w:
        await publish(w.publisher, make_job(tmp_path, privacy="unlisted"), FakeJournal())
        written = [json.loads(r.content) for r in w.transport.requests if r.headers.get("content-type") == "application/json"]
        assert [body["status"]["privacyStatus"] for body in written] == ["private", "unlisted"]


async def test_an_upload_that_does_not_say_its_privacy_is_public_in_the_sandbox_as_on_youtube() -> None:
    async with world() as w:
        headers = {"Authorization": "Bearer sandbox-main", "X-Upload-Content-Type": "video/mp4"}
        url, query = f"{w.base_url}/upload/youtube/v3/videos", {"uploadType": "resumable", "part": "snippet,status"}
        opened = await w.client.post(url, params=query, headers=headers, json={"snippet": {"title": "t"}})
        made = await w.client.put(opened.headers["location"], headers=headers, content=video_bytes(500))
        assert made.json()["status"]["privacyStatus"] == "public"


# --- the privacy is never left to a default


async def test_every_status_that_is_sent_names_its_privacy(tmp_path: Path) -> None:
    async with world() as w:
        await publish(w.publisher, make_job(tmp_path), FakeJournal())
    bodies = [json.loads(r.content) for r in w.transport.requests if r.headers.get("content-type") == "application/json"]
    assert [body["status"]["privacyStatus"] for body in bodies if "status" in body] == ["private", "public"]


# --- a token is sent to its own service only


class Elsewhere(httpx.AsyncBaseTransport):
    """Names an upload address at another host, as a wrong base URL or a proxy on the way may do."""

    def __init__(self) -> None:
        self.inner = httpx.AsyncHTTPTransport()
        self.hosts: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.hosts.append(request.url.host)
        response = await self.inner.handle_async_request(request)
        if "location" in response.headers:
            response.headers["location"] = "http://localhost:9/upload?upload_id=x"
        return response

    async def aclose(self) -> None:
        await self.inner.aclose()


async def test_an_upload_address_at_another_host_is_refused_and_never_gets_the_token(tmp_path: Path) -> None:
    elsewhere = Elsewhere()
    async with world(inner=elsewhere, sandbox=False) as w:
        journal = FakeJournal()
        with pytest.raises(Permanent, match=r"another host \(localhost\)") as refused:
            await publish(w.publisher, make_job(tmp_path), journal)
    assert refused.value.code == "foreign_host"
    assert set(elsewhere.hosts) == {"127.0.0.1"}
    assert (journal.record.state, journal.record.handle) == (PostState.FAILED, {})
