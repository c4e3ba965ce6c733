"""The Instagram publisher against the stand-in over HTTP: one post, no matter what is lost, cut, killed or refused.

What the stand-in itself refuses is tested in `test_instagram_sandbox`, numbers in `test_instagram_metrics`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp.test_utils import TestServer

from phantoms_dagster.domain.errors import (
    Barred,
    Disconnected,
    NotYet,
    Permanent,
    ProviderError,
    Rejected,
    Throttled,
    Transient,
    Unknown,
)
from phantoms_dagster.domain.models import Platform, Probe
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.domain.publication import PublishedPost
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.instagram.api import ERRORS, Graph, error_class, judge
from phantoms_dagster.platforms.instagram.metrics import InstagramMetricsReader
from phantoms_dagster.platforms.instagram.publisher import InstagramPublisher
from phantoms_dagster.platforms.instagram.reel import normalised
from phantoms_dagster.production.publication import publish
from phantoms_dagster.sandbox.core import Fault, Sandbox, application
from phantoms_dagster.sandbox.instagram.people import APP_SECRET
from phantoms_dagster.sandbox.instagram.routes import routes
from phantoms_dagster_tests.contract.publishing_kit import (
    FakeJournal,
    Killed,
    MortalTransport,
    SandboxClock,
    SandboxTokens,
    at,
)
from phantoms_dagster_tests.made_videos import video_bytes

ACCOUNT = "ocean.facts"
CAPTION = "Eels cross an ocean to spawn,  says @marine_lab\n#ocean #facts"


@dataclass
class Stand:
    """A running sandbox and a client for it."""

    sandbox: Sandbox
    clock: SandboxClock
    transport: MortalTransport
    client: httpx.AsyncClient
    origin: str
    tokens: SandboxTokens = field(default_factory=SandboxTokens)

    def publisher(self, **changes: Any) -> InstagramPublisher:
        given: dict[str, Any] = {
            "client": self.client,
            "base_url": f"{self.origin}/instagram",
            "upload_url": f"{self.origin}/instagram/rupload",
            "tokens": self.tokens,
            "clock": self.clock,
            "sandbox": True,
        }
        return InstagramPublisher(**{**given, **changes})

    def fail(self, route: str, kind: str = "status", **given: Any) -> None:
        self.sandbox.faults.append(Fault(route=f"instagram.{route}", kind=kind, **{"times": 1, **given}))

    def refuse(self, route: str, code: int, subcode: int | None = None, *, status: int = 400, **given: Any) -> None:
        error = {"message": "no", "type": "OAuthException", "code": code, "fbtrace_id": "x"}
        if subcode is not None:
            error["error_subcode"] = subcode
        self.fail(route, status=status, body=json.dumps({"error": error}), **given)

    @property
    def posts(self) -> list[dict[str, Any]]:
        return [entry for entry in self.sandbox.ledger if entry["kind"] == "post"]

    def calls(self, route: str) -> int:
        return self.sandbox.calls.get(f"instagram.{route}", 0)


@contextlib.asynccontextmanager
async def standing() -> AsyncIterator[Stand]:
    sandbox = Sandbox(seed=1)
    async with TestServer(application(sandbox, [routes(sandbox)])) as server:
        transport = MortalTransport()
        async with httpx.AsyncClient(transport=transport, timeout=5.0) as client:
            yield Stand(sandbox, SandboxClock(sandbox), transport, client, str(server.make_url("")).rstrip("/"))


def mp4(seconds: float = 30.0, *, moov_first: bool = True) -> bytes:
    """A small video within Instagram's rules."""
    return video_bytes(seconds=seconds, fps=24, width=64, height=114, moov_first=moov_first)


def make_job(folder: Path, content: bytes | None = None, **changes: Any) -> PublishJob:
    content = mp4() if content is None else content
    file = folder / "variant.mp4"
    file.write_bytes(content)
    probe = Probe(
        container="mp4", seconds=30.0, size=len(content), width=1080, height=1920, fps=30.0, video_codec="h264",
        pixel_format="yuv420p", bit_rate=5_000_000, moov_first=True,
    )  # fmt: skip
    job = PublishJob(
        video_key="20261122-eels-1", platform=Platform("instagram"), account=ACCOUNT, marker="m-1", file=file, size=len(content),
        sha256=hashlib.sha256(content).hexdigest(), probe=probe, title="Eels", caption=CAPTION,
    )  # fmt: skip
    return dataclasses.replace(job, **changes)


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with standing() as made:
        yield made


@pytest.fixture
def job(tmp_path: Path) -> PublishJob:
    return make_job(tmp_path)


async def until_published(stand: Stand, job: PublishJob, journal: FakeJournal, **changes: Any) -> PublishedPost:
    """Call publish() again after every death and every error that says to try again, as a runner does."""
    for _ in range(12):
        try:
            return await publish(stand.publisher(**changes), job, journal)
        except (Killed, Transient, Unknown, NotYet) as error:
            stand.sandbox.advance((getattr(error, "retry_after", None) or 0.0) + 1.0)
    pytest.fail(f"not published; the journal went {journal.states}")


def assert_one_post(stand: Stand, job: PublishJob, journal: FakeJournal, post: PublishedPost) -> None:
    (entry,) = stand.posts
    assert (entry["remote_id"], entry["account"], entry["caption"]) == (post.remote_id, job.account, job.caption)
    assert (entry["sha256"], entry["size"]) == (job.sha256, job.size)
    assert (journal.record.state, journal.record.remote_id, journal.record.url) == (PostState.CONFIRMED, post.remote_id, post.url)


# --- the straight way


async def test_a_reel_is_uploaded_published_and_read_back_with_its_permalink(stand: Stand, job: PublishJob) -> None:
    journal = FakeJournal()
    post = await publish(stand.publisher(), job, journal)
    assert_one_post(stand, job, journal, post)
    assert stand.posts[0]["is_ai_generated"]
    assert stand.posts[0]["share_to_feed"]
    assert post.url == f"{stand.origin}/instagram/watch/{post.remote_id}"
    assert abs(post.published_at.timestamp() - stand.posts[0]["at"]) <= 1
    assert journal.states == ["opened", "opened", "uploading", "uploading", "committing", "published", "confirmed"]
    page = await stand.client.get(post.url)
    assert page.status_code == 200
    assert "Eels cross an ocean" in page.text


async def test_the_commit_is_journaled_before_it_is_sent(stand: Stand, job: PublishJob) -> None:
    journal = FakeJournal()
    stand.fail("publish", "drop_before")
    with pytest.raises(Unknown):
        await publish(stand.publisher(), job, journal)
    assert journal.states[-2:] == ["committing", "unknown"]
    assert stand.posts == []


async def test_a_post_that_is_out_is_only_read_when_it_is_asked_for_again(stand: Stand, job: PublishJob) -> None:
    journal = FakeJournal()
    first = await publish(stand.publisher(), job, journal)
    job.file.unlink()
    assert await publish(stand.publisher(), job, journal) == first
    assert (len(stand.posts), stand.calls("publish"), stand.calls("create")) == (1, 1, 1)


async def test_a_video_still_processing_is_left_for_later_and_finished_then(stand: Stand, job: PublishJob) -> None:
    stand.sandbox.config["instagram.processing_seconds"] = 500.0
    journal = FakeJournal()
    with pytest.raises(NotYet) as waiting:
        await publish(stand.publisher(max_wait=30), job, journal)
    assert waiting.value.retry_after > 0
    assert sum(stand.clock.slept) <= 30
    assert stand.posts == []
    stand.sandbox.advance(500)
    post = await publish(stand.publisher(), job, journal)
    assert_one_post(stand, job, journal, post)
    assert (stand.calls("create"), stand.calls("upload")) == (1, 1)


# --- death and lost answers, everywhere


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "malformed", "status"])
@pytest.mark.parametrize("route", ["quota", "create", "upload", "status", "publish", "read"])
async def test_an_answer_lost_on_any_route_leaves_one_post(stand: Stand, job: PublishJob, route: str, kind: str) -> None:
    journal = FakeJournal()
    stand.fail(route, kind, status=503)
    post = await until_published(stand, job, journal)
    assert_one_post(stand, job, journal, post)
    assert stand.sandbox.faults[0].hits == 1


@pytest.mark.parametrize("route", ["status", "list", "publish", "quota"])
async def test_a_second_loss_while_the_first_is_resolved_leaves_one_post(stand: Stand, job: PublishJob, route: str) -> None:
    journal = FakeJournal()
    stand.fail("publish", "drop_after")
    with pytest.raises(Unknown):
        await publish(stand.publisher(), job, journal)
    stand.fail(route, "drop_after")
    post = await until_published(stand, job, journal)
    assert_one_post(stand, job, journal, post)
    assert stand.calls("publish") == 1


# --- doubt


async def test_a_lost_publish_that_took_effect_is_found_by_its_caption_not_sent_again(stand: Stand, job: PublishJob) -> None:
    journal = FakeJournal()
    stand.fail("publish", "drop_after")
    post = await until_published(stand, job, journal)
    assert_one_post(stand, job, journal, post)
    assert (stand.calls("publish"), stand.calls("create")) == (1, 1)


async def test_a_lost_publish_that_did_not_take_effect_is_sent_again_with_the_same_container_after_settling(
    stand: Stand, job: PublishJob
) -> None:
    journal = FakeJournal()
    stand.fail("publish", "drop_before")
    with pytest.raises(Unknown):
        await publish(stand.publisher(), job, journal)
    before = len(stand.clock.slept)
    post = await publish(stand.publisher(settle_seconds=45), job, journal)
    assert_one_post(stand, job, journal, post)
    assert sum(stand.clock.slept[before:]) == pytest.approx(45, abs=1)
    assert stand.calls("create") == 1


async def test_a_container_that_tells_late_that_it_was_published_is_not_published_again(stand: Stand, job: PublishJob) -> None:
    stand.sandbox.config["instagram.status_lag_seconds"] = 40.0
    journal = FakeJournal()
    stand.fail("publish", "drop_after")
    post = await until_published(stand, job, journal)
    assert_one_post(stand, job, journal, post)
    assert stand.calls("publish") == 1


async def test_a_listed_post_counts_as_published_though_its_container_stays_finished(stand: Stand, job: PublishJob) -> None:
    stand.sandbox.config["instagram.status_lag_seconds"] = 9_999.0
    journal = FakeJournal()
    stand.fail("publish", "drop_after")
    post = await until_published(stand, job, journal)
    assert_one_post(stand, job, journal, post)
    assert stand.calls("publish") == 1


async def test_settling_longer_than_patience_is_deferred_and_the_second_read_is_the_next_calls(
    stand: Stand, job: PublishJob
) -> None:
    journal = FakeJournal()
    stand.fail("publish", "drop_before")
    with pytest.raises(Unknown):
        await publish(stand.publisher(), job, journal)
    with pytest.raises(NotYet) as deferred:
        await publish(stand.publisher(max_wait=10), job, journal)
    assert 50 < deferred.value.retry_after <= 60
    assert journal.record.state is PostState.UNKNOWN
    stand.sandbox.advance(deferred.value.retry_after)
    post = await publish(stand.publisher(max_wait=10), job, journal)
    assert_one_post(stand, job, journal, post)


async def test_an_expired_container_whose_post_is_listed_is_not_made_again(stand: Stand, job: PublishJob) -> None:
    stand.sandbox.config["instagram.status_lag_seconds"] = 1e9
    journal = FakeJournal()
    stand.fail("publish", "drop_after")
    with pytest.raises(Unknown):
        await publish(stand.publisher(), job, journal)
    stand.sandbox.advance(90_000)
    post = await publish(stand.publisher(), job, journal)
    assert_one_post(stand, job, journal, post)
    assert stand.calls("create") == 1


async def test_an_expired_container_whose_post_is_absent_is_replaced(stand: Stand, job: PublishJob) -> None:
    journal = FakeJournal()
    stand.fail("publish", "drop_before")
    with pytest.raises(Unknown):
        await publish(stand.publisher(), job, journal)
    stand.sandbox.advance(90_000)
    with pytest.raises(Transient, match="EXPIRED"):
        await publish(stand.publisher(), job, journal)
    assert journal.record.state is PostState.INTENT
    post = await publish(stand.publisher(), job, journal)
    assert_one_post(stand, job, journal, post)
    assert stand.calls("create") == 2


async def test_two_reels_with_the_same_caption_leave_the_doubt_to_a_person(stand: Stand, job: PublishJob) -> None:
    first, second = FakeJournal(), FakeJournal()
    stand.fail("publish", "drop_after", times=2)
    for journal in (first, second):
        with pytest.raises(Unknown):
            await publish(stand.publisher(), job, journal)
    with pytest.raises(Unknown, match="a person"):
        await publish(stand.publisher(), job, first)
    assert first.record.state is PostState.UNKNOWN
    assert len(stand.posts) == 2


async def test_a_reel_that_lost_its_caption_with_its_sixth_hashtag_is_found(stand: Stand, tmp_path: Path) -> None:
    """What Instagram does with more than five hashtags is not documented; it has dropped whole captions before."""
    job, journal = make_job(tmp_path, caption="Eels #a #b #c #d #e #f"), FakeJournal()
    stand.fail("publish", "drop_after")
    with pytest.raises(Unknown):
        await publish(stand.publisher(), job, journal)
    post = await until_published(stand, job, journal)
    assert [entry["remote_id"] for entry in stand.posts] == [post.remote_id]
    assert (stand.posts[0]["caption"], stand.calls("publish")) == ("", 1)


async def test_a_reel_without_a_caption_is_no_proof_that_an_expired_container_was_published(stand: Stand, tmp_path: Path) -> None:
    job, journal = make_job(tmp_path, caption="Eels #a #b #c #d #e #f"), FakeJournal()
    stand.fail("publish", "drop_before")
    with pytest.raises(Unknown):
        await publish(stand.publisher(), job, journal)
    await publish(stand.publisher(), make_job(tmp_path, caption=""), FakeJournal())
    stand.sandbox.advance(86_400)
    post = await until_published(stand, job, journal)
    assert (len(stand.posts), post.remote_id) == (2, stand.posts[1]["remote_id"])


async def test_an_older_reel_with_the_same_caption_is_not_taken_for_this_one(stand: Stand, job: PublishJob) -> None:
    old = await publish(stand.publisher(), job, FakeJournal())
    media = stand.sandbox.state["instagram"].media
    media[old.remote_id] = dataclasses.replace(media[old.remote_id], published_at=media[old.remote_id].published_at - 3_600)
    stand.sandbox.state["instagram"]._published[ACCOUNT][0] = media[old.remote_id]
    journal = FakeJournal()
    stand.fail("publish", "drop_after")
    post = await until_published(stand, job, journal)
    assert post.remote_id != old.remote_id


async def test_an_older_reel_is_not_taken_for_this_one_even_if_the_list_is_not_cut_at_the_start(
    stand: Stand, job: PublishJob
) -> None:
    journal = FakeJournal()
    stand.fail("publish", "drop_before")
    with pytest.raises(Unknown):
        await publish(stand.publisher(), job, journal)
    old = {"id": "18050000000000099", "caption": CAPTION, "timestamp": "2020-01-01T00:00:00+0000", "media_product_type": "REELS"}
    stand.fail("list", status=200, body=json.dumps({"data": [old]}))
    post = await publish(stand.publisher(), job, journal)
    assert_one_post(stand, job, journal, post)


async def test_a_publish_that_was_refused_but_took_effect_is_found_when_its_container_has_expired(
    stand: Stand, job: PublishJob
) -> None:
    stand.sandbox.config["instagram.status_lag_seconds"] = 1e9
    journal = FakeJournal()
    publisher = stand.publisher()
    send = publisher.graph.post

    async def throttled(account: str, path: str, form: Mapping[str, str], **given: Any) -> Any:
        answer = await send(account, path, form, **given)
        if path.endswith("media_publish"):
            raise Throttled("slow down", provider="instagram", code="4")
        return answer

    publisher.graph.post = throttled  # type: ignore[method-assign]
    with pytest.raises(Throttled):
        await publish(publisher, job, journal)
    assert journal.record.state is PostState.UPLOADING
    stand.sandbox.advance(90_000)
    post = await publish(stand.publisher(), job, journal)
    assert_one_post(stand, job, journal, post)
    assert stand.calls("create") == 1


async def test_a_post_is_found_on_a_later_page_of_the_list(stand: Stand, job: PublishJob) -> None:
    stand.sandbox.config["instagram.quota_total"] = 1_000
    journal = FakeJournal()
    stand.fail("publish", "drop_after")
    with pytest.raises(Unknown):
        await publish(stand.publisher(), job, journal)
    state = stand.sandbox.state["instagram"]
    for number in range(60):
        state.publish(state.open(ACCOUNT, f"another {number}", share_to_feed=True, is_ai_generated=True))
    post = await publish(stand.publisher(), job, journal)
    assert post.remote_id == stand.posts[0]["remote_id"]
    assert stand.calls("list") == 2


async def test_a_replay_of_a_post_that_was_given_up_in_doubt_resolves_the_doubt_first(stand: Stand, job: PublishJob) -> None:
    journal = FakeJournal()
    stand.fail("publish", "drop_after")
    with pytest.raises(Unknown):
        await publish(stand.publisher(), job, journal)
    journal.left(PostState.FAILED)
    post = await publish(stand.publisher(), job, journal)
    assert_one_post(stand, job, journal, post)
    assert stand.calls("create") == 1


def test_captions_are_compared_without_at_signs_and_with_single_spaces() -> None:
    assert normalised("a  @b\n#c") == normalised("a b #c") == "a b #c"


# --- uploads


async def test_a_cut_upload_is_made_again_with_a_new_container(stand: Stand, job: PublishJob) -> None:
    journal = FakeJournal()
    stand.fail("upload", "drop_before")
    post = await until_published(stand, job, journal)
    assert_one_post(stand, job, journal, post)
    assert stand.calls("create") == 2


async def test_an_upload_whose_answer_was_lost_is_used_not_made_again(stand: Stand, job: PublishJob) -> None:
    journal = FakeJournal()
    stand.fail("upload", "drop_after")
    post = await until_published(stand, job, journal)
    assert_one_post(stand, job, journal, post)
    assert (stand.calls("create"), stand.calls("upload")) == (1, 1)


async def test_an_upload_that_never_left_uses_the_same_container(stand: Stand, job: PublishJob) -> None:
    journal = FakeJournal()
    stand.transport.refuse["rupload"] = NotYet("no slot", retry_after=1.0)
    with pytest.raises(NotYet):
        await publish(stand.publisher(), job, journal)
    stand.transport.refuse["rupload"] = httpx.ConnectError("refused")
    with pytest.raises(Transient):
        await publish(stand.publisher(), job, journal)
    post = await publish(stand.publisher(), job, journal)
    assert_one_post(stand, job, journal, post)
    assert stand.calls("create") == 1


@pytest.mark.parametrize(("retriable", "kind"), [(True, Transient), (False, Permanent)])
async def test_a_refused_upload_says_whether_it_may_be_tried_again(
    stand: Stand, job: PublishJob, retriable: bool, kind: type[ProviderError]
) -> None:
    journal = FakeJournal()
    info = {"debug_info": {"retriable": retriable, "type": "ProcessingFailedError", "message": "no"}}
    stand.fail("upload", status=400, body=json.dumps(info))
    with pytest.raises(kind, match="ProcessingFailedError") as refused:
        await publish(stand.publisher(), job, journal)
    assert type(refused.value) is kind
    assert journal.record.state is (PostState.INTENT if retriable else PostState.FAILED)


async def test_a_container_opened_a_day_ago_is_not_uploaded_to(stand: Stand, job: PublishJob) -> None:
    journal = FakeJournal(kill=at("after save", 2))
    with pytest.raises(Killed):
        await publish(stand.publisher(), job, journal)
    stand.sandbox.advance(90_000)
    post = await publish(stand.publisher(), job, journal)
    assert_one_post(stand, job, journal, post)
    assert stand.calls("create") == 2


async def test_a_file_of_the_wrong_format_is_permanent(stand: Stand, tmp_path: Path) -> None:
    journal = FakeJournal()
    with pytest.raises(Permanent, match="2207026") as refused:
        await publish(stand.publisher(), make_job(tmp_path, mp4(moov_first=False)), journal)
    assert refused.value.code == "2207026"
    assert stand.posts == []


@pytest.mark.parametrize(
    "changes",
    [
        {"caption": "x" * 2_201},
        {"caption": " ".join(f"#t{n}" for n in range(31))},
        {"caption": " ".join(f"@t{n}" for n in range(21))},
        {"size": 301 * 1024 * 1024},
        {"size": 17},
    ],
)
async def test_what_instagram_would_refuse_is_refused_before_anything_is_sent(
    stand: Stand, tmp_path: Path, changes: dict[str, Any]
) -> None:
    journal = FakeJournal()
    with pytest.raises(Permanent):
        await publish(stand.publisher(), make_job(tmp_path, **changes), journal)
    assert (stand.transport.count, journal.states) == (0, [PostState.FAILED])


# --- limits and refusals


async def test_a_used_up_quota_is_throttled_before_anything_is_made(stand: Stand, job: PublishJob) -> None:
    stand.sandbox.config["instagram.quota_total"] = 0
    journal = FakeJournal()
    with pytest.raises(Throttled, match="0 of 0") as limited:
        await publish(stand.publisher(), job, journal)
    assert limited.value.retry_after == 86_400
    assert journal.record.state is PostState.INTENT
    assert stand.calls("create") == 0


async def test_a_quota_used_up_meanwhile_keeps_the_container_for_later(stand: Stand, job: PublishJob) -> None:
    journal = FakeJournal(kill=at("after save", 4))
    with pytest.raises(Killed):
        await publish(stand.publisher(), job, journal)
    stand.sandbox.config["instagram.quota_total"] = 0
    with pytest.raises(Throttled):
        await publish(stand.publisher(), job, journal)
    assert stand.calls("publish") == 0
    stand.sandbox.config["instagram.quota_total"] = 10
    post = await publish(stand.publisher(), job, journal)
    assert_one_post(stand, job, journal, post)
    assert stand.calls("create") == 1


async def test_the_posts_of_a_minute_share_one_look_at_the_quota_until_they_have_used_it_up(stand: Stand, tmp_path: Path) -> None:
    stand.sandbox.config["instagram.quota_total"] = 2
    publisher = stand.publisher()
    for number in range(2):
        await publish(publisher, make_job(tmp_path, marker=f"video-{number}", caption=f"Eel {number}"), FakeJournal())
    assert stand.calls("quota") == 1
    with pytest.raises(Throttled, match="2 of 2"):
        await publish(publisher, make_job(tmp_path, marker="video-2", caption="Eel 2"), FakeJournal())
    assert (stand.calls("quota"), stand.calls("create"), len(stand.posts)) == (2, 2, 2)


async def test_a_quota_is_read_again_after_a_minute_and_for_each_account(stand: Stand, tmp_path: Path) -> None:
    publisher = stand.publisher()
    await publish(publisher, make_job(tmp_path, marker="first", caption="Eel one"), FakeJournal())
    stand.sandbox.advance(61)
    await publish(publisher, make_job(tmp_path, marker="second", caption="Eel two"), FakeJournal())
    assert stand.calls("quota") == 2
    await publish(publisher, make_job(tmp_path, account="eel.facts"), FakeJournal())
    assert stand.calls("quota") == 3


async def test_a_quota_that_others_used_up_since_it_was_read_shows_in_the_refused_post(stand: Stand, tmp_path: Path) -> None:
    publisher, journal = stand.publisher(), FakeJournal()
    await publish(publisher, make_job(tmp_path, marker="first", caption="Eel one"), FakeJournal())
    stand.sandbox.config["instagram.quota_total"] = 1
    job = make_job(tmp_path, marker="second", caption="Eel two")
    with pytest.raises(Throttled):
        await publish(publisher, job, journal)
    assert (journal.record.state, len(stand.posts)) == (PostState.UPLOADING, 1)
    stand.sandbox.config["instagram.quota_total"] = 5
    await publish(publisher, job, journal)
    assert (len(stand.posts), stand.calls("create")) == (2, 2)


@pytest.mark.parametrize(
    ("code", "subcode", "kind", "state"),
    [
        (9, 2_207_042, Throttled, PostState.UPLOADING),
        (24, 1_390_008, Throttled, PostState.UPLOADING),
        (102, None, Disconnected, PostState.UPLOADING),
        (4, None, Throttled, PostState.UPLOADING),
        (190, 463, Disconnected, PostState.UPLOADING),
        (9007, 2_207_027, NotYet, PostState.UPLOADING),
        (4, 2_207_051, Rejected, PostState.UNKNOWN),
        (-1, 2_207_001, Unknown, PostState.UNKNOWN),
        (2, None, Unknown, PostState.UNKNOWN),
        (100, 33, Unknown, PostState.UNKNOWN),
        (24, 2_207_008, Unknown, PostState.UNKNOWN),
        (987_654, None, Unknown, PostState.UNKNOWN),
    ],
)
async def test_a_refused_publish_is_taken_back_only_when_the_refusal_is_explicit(
    stand: Stand, job: PublishJob, code: int, subcode: int | None, kind: type[Exception], state: PostState
) -> None:
    journal = FakeJournal()
    stand.refuse("publish", code, subcode)
    with pytest.raises(kind) as refused:
        await publish(stand.publisher(), job, journal)
    assert type(refused.value) is kind
    assert journal.record.state is state
    post = await until_published(stand, job, journal)
    assert_one_post(stand, job, journal, post)
    assert stand.calls("create") == 1


async def test_a_post_reported_as_blocked_that_is_public_anyway_counts_as_published(stand: Stand, job: PublishJob) -> None:
    journal = FakeJournal()
    publisher = stand.publisher()
    send = publisher.graph.post

    async def blocked(account: str, path: str, form: Mapping[str, str], **given: Any) -> Any:
        answer = await send(account, path, form, **given)
        if path.endswith("media_publish"):
            raise Rejected("blocked", provider="instagram", code="4/2207051")
        return answer

    publisher.graph.post = blocked  # type: ignore[method-assign]
    post = await publish(publisher, job, journal)
    assert_one_post(stand, job, journal, post)


async def test_a_container_that_stays_in_progress_for_an_hour_comes_to_a_person_and_is_still_read(
    stand: Stand, job: PublishJob
) -> None:
    """It was polled for ever, and only its stage showed that, after a day."""
    journal = FakeJournal()
    stand.fail("publish", "drop_after")
    with pytest.raises(Unknown):
        await publish(stand.publisher(), job, journal)
    stand.fail("status", times=1_000, status=200, body=json.dumps({"status_code": "IN_PROGRESS", "id": "1"}))
    with pytest.raises(NotYet, match="still processing"):
        await publish(stand.publisher(), job, journal)
    stand.sandbox.advance(3_600)
    with pytest.raises(Unknown, match="still says that its container is in progress") as slow:
        await publish(stand.publisher(), job, journal)
    assert (slow.value.code, journal.record.state) == ("in_progress", PostState.UNKNOWN)
    stand.sandbox.faults.clear()
    post = await until_published(stand, job, journal)
    assert_one_post(stand, job, journal, post)
    assert (stand.calls("create"), stand.calls("publish")) == (1, 1)


async def test_an_account_that_turns_out_to_be_restricted_waits_and_its_post_does_not_fail(stand: Stand, job: PublishJob) -> None:
    journal = FakeJournal()
    error = {"status_code": "ERROR", "status": "Error: Media upload has failed with error code 2207050", "id": "1"}
    stand.fail("status", status=200, body=json.dumps(error))
    with pytest.raises(Barred, match="2207050"):
        await publish(stand.publisher(), job, journal)
    assert journal.record.state is PostState.INTENT
    post = await until_published(stand, job, journal)
    assert_one_post(stand, job, journal, post)


@pytest.mark.parametrize("route", ["create", "publish"])
async def test_a_token_that_is_refused_with_code_102_is_replaced(stand: Stand, job: PublishJob, route: str) -> None:
    stand.tokens.renews = True
    stand.refuse(route, 102, status=401)
    journal = FakeJournal()
    post = await publish(stand.publisher(), job, journal)
    assert_one_post(stand, job, journal, post)
    assert stand.calls(route) == 2


async def test_a_dead_token_is_permanent_and_says_to_reconnect(stand: Stand, job: PublishJob) -> None:
    stand.tokens.prefix = "expired-"
    with pytest.raises(Permanent, match="reconnect the account") as dead:
        await publish(stand.publisher(), job, FakeJournal())
    assert ACCOUNT in str(dead.value)
    assert "expired-" not in str(dead.value) + dead.value.evidence.model_dump_json()


async def test_a_permalink_that_cannot_be_read_yet_does_not_undo_the_post(stand: Stand, job: PublishJob) -> None:
    journal = FakeJournal()
    stand.refuse("read", 100, 33)
    with pytest.raises(Transient):
        await publish(stand.publisher(), job, journal)
    assert journal.record.state is PostState.PUBLISHED
    post = await publish(stand.publisher(), job, journal)
    assert_one_post(stand, job, journal, post)


# --- the hours, at the moment of sending


class Hours:
    """The job's `may_go`: open for that many requests, then closed until it is set."""

    def __init__(self, open_for: int) -> None:
        self.left = open_for

    async def __call__(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise NotYet("goes out in the morning", retry_after=3_600)


async def test_a_reel_that_is_processed_until_after_the_hours_is_published_in_the_morning(stand: Stand, job: PublishJob) -> None:
    hours, journal = Hours(1), FakeJournal()
    job = dataclasses.replace(job, may_go=hours)
    with pytest.raises(NotYet, match="in the morning"):
        await publish(stand.publisher(), job, journal)
    assert (stand.posts, stand.calls("publish"), journal.record.state) == ([], 0, PostState.UPLOADING)
    hours.left = 10
    post = await publish(stand.publisher(), job, journal)
    assert_one_post(stand, job, journal, post)
    assert (stand.calls("create"), stand.calls("upload"), stand.calls("publish")) == (1, 1, 1)


# --- a token is sent to its own service only


async def test_a_stored_upload_address_at_another_host_never_gets_the_token(stand: Stand, job: PublishJob) -> None:
    journal = FakeJournal()
    handle: JsonObject = {"id": "17", "upload_url": "http://127.0.0.1:9/upload/17", "since": stand.clock.now().isoformat()}
    journal.left(PostState.OPENED, handle=handle)
    stand.transport.refuse[":9/"] = AssertionError("the token went to another host")
    post = await publish(stand.publisher(), job, journal)
    assert_one_post(stand, job, journal, post)
    assert stand.calls("create") == 1


async def test_an_answer_that_names_another_host_for_the_upload_is_not_obeyed(stand: Stand, job: PublishJob) -> None:
    publisher, journal = stand.publisher(), FakeJournal()
    send = publisher.graph.post

    async def elsewhere(account: str, path: str, form: Mapping[str, str], **given: Any) -> Any:
        answer, date = await send(account, path, form, **given)
        return {**answer, "uri": "http://127.0.0.1:9/upload"}, date

    publisher.graph.post = elsewhere  # type: ignore[method-assign]
    stand.transport.refuse[":9/"] = AssertionError("the token went to another host")
    post = await publish(publisher, job, journal)
    assert_one_post(stand, job, journal, post)


# --- the table of errors

TABLE = [
    (-2, 2_207_003, Transient), (-2, 2_207_020, Transient), (-1, 2_207_001, Transient), (-1, 2_207_032, Transient),
    (-1, 2_207_053, Transient), (1, 2_207_057, Permanent), (4, 2_207_051, Rejected), (9, 2_207_042, Throttled),
    (24, 2_207_006, Transient), (24, 2_207_008, Transient), (25, 2_207_050, Barred), (100, 2_207_023, Permanent),
    (100, 2_207_028, Permanent), (100, 2_207_040, Permanent), (100, 2_207_035, Permanent), (100, 2_207_036, Permanent),
    (100, 2_207_037, Permanent), (352, 2_207_026, Permanent), (9004, 2_207_052, Permanent), (9007, 2_207_027, Transient),
    (36_000, 2_207_004, Permanent), (36_001, 2_207_005, Permanent), (36_003, 2_207_009, Permanent),
    (36_004, 2_207_010, Permanent), (190, 102, Disconnected), (190, 463, Disconnected), (190, 467, Disconnected),
    (102, None, Disconnected), (-1, 1_390_008, Throttled), (987_654, 1_390_008, Throttled),
    (10, None, Barred), (200, None, Barred), (299, None, Barred), (4, None, Throttled),
    (17, None, Throttled), (32, None, Throttled), (613, None, Throttled), (80_002, None, Throttled), (80_004, None, Throttled),
    (1, None, Transient), (2, None, Transient),
]  # fmt: skip


@pytest.mark.parametrize(("code", "subcode", "kind"), TABLE)
def test_every_row_of_the_error_table_is_the_documented_class(code: int, subcode: int | None, kind: type[ProviderError]) -> None:
    assert error_class(code, subcode) is kind
    envelope: dict[str, Any] = {"message": "token=secret", "type": "OAuthException", "code": code, "error_subcode": subcode}
    request = httpx.Request("GET", "https://graph.facebook.com/v26.0/1?access_token=secret")
    error = judge(httpx.Response(400, json={"error": envelope}, request=request), ACCOUNT)
    assert type(error) is kind
    assert "secret" not in str(error) + error.evidence.model_dump_json()


def test_no_row_of_the_error_table_is_untested() -> None:
    tested = {(code, subcode) for code, subcode, _ in TABLE} | {(code, None) for code, _, _ in TABLE}
    assert {row for row in ERRORS if row not in tested} <= {(code, None) for code in range(201, 299)}


def test_an_unknown_code_is_permanent_unless_the_api_calls_it_transient() -> None:
    assert error_class(424_242, None) is None
    assert error_class(424_242, None, is_transient=True) is Transient
    request = httpx.Request("GET", "https://graph.facebook.com/v26.0/1")
    assert type(judge(httpx.Response(400, json={"error": {"code": 424_242}}, request=request), ACCOUNT)) is Permanent
    assert type(judge(httpx.Response(404, text="<html>", request=request), ACCOUNT)) is Permanent
    assert type(judge(httpx.Response(502, text="<html>", request=request), ACCOUNT)) is Transient
    assert type(judge(httpx.Response(429, text="", request=request), ACCOUNT)) is Throttled
    for envelope in ({"code": 424_242}, {"code": 424_242, "is_transient": True}):
        assert type(judge(httpx.Response(429, json={"error": envelope}, request=request), ACCOUNT)) is Throttled
        assert type(judge(httpx.Response(429, json={"error": envelope}, request=request), ACCOUNT, commits=True)) is Throttled


@pytest.mark.parametrize(("headers", "seconds"), [({}, 3_600), ({"Retry-After": "90"}, 90)])
def test_a_used_up_day_is_not_asked_about_each_minute(headers: dict[str, str], seconds: float) -> None:
    request = httpx.Request("POST", "https://graph.facebook.com/v26.0/1/media_publish")
    envelope = {"code": 9, "error_subcode": 2_207_042, "message": "limit"}
    error = judge(httpx.Response(403, json={"error": envelope}, headers=headers, request=request), ACCOUNT, commits=True)
    assert isinstance(error, Throttled)
    assert error.retry_after == seconds


def test_throttling_waits_as_long_as_the_business_use_case_header_says() -> None:
    usage = {"178414": [{"type": "instagram", "call_count": 100, "estimated_time_to_regain_access": 7}]}
    answer = httpx.Response(
        400,
        json={"error": {"code": 80_002, "message": "slow down"}},
        headers={"X-Business-Use-Case-Usage": json.dumps(usage)},
        request=httpx.Request("GET", "https://graph.facebook.com/v26.0/1"),
    )
    error = judge(answer, ACCOUNT)
    assert isinstance(error, Throttled)
    assert error.retry_after == 420


# --- the proof that a call comes from the app


async def test_with_an_app_secret_every_call_proves_that_it_comes_from_the_app(stand: Stand, job: PublishJob) -> None:
    stand.sandbox.config["instagram.require_proof"] = True
    with pytest.raises(Permanent, match="appsecret_proof"):
        await publish(stand.publisher(), job, FakeJournal())
    with pytest.raises(Permanent, match="appsecret_proof"):
        await publish(stand.publisher(app_secret=lambda: "another"), job, FakeJournal())
    journal = FakeJournal()
    post = await publish(stand.publisher(app_secret=lambda: APP_SECRET), job, journal)
    assert_one_post(stand, job, journal, post)
    reader = InstagramMetricsReader(
        client=stand.client,
        base_url=f"{stand.origin}/instagram",
        tokens=stand.tokens,
        clock=stand.clock,
        app_secret=lambda: APP_SECRET,
    )
    pages = [page async for page in reader.pages(ACCOUNT, [post.remote_id])]
    assert [found.remote_id for page in pages for found in page.metrics] == [post.remote_id]


@pytest.mark.parametrize(("host", "proved"), [("graph.facebook.com", True), ("graph.instagram.com", False)])
async def test_only_facebook_logins_host_is_given_the_proof(host: str, proved: bool) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"id": "1"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        graph = Graph(
            client=client, base_url=f"https://{host}", version="v26.0", tokens=SandboxTokens(), app_secret=lambda: "secret"
        )
        await graph.get(ACCOUNT, "1", fields="id")
        await graph.post(ACCOUNT, "1/media", {"caption": "Eels"})
    assert ["appsecret_proof" in asked[0].url.params, b"appsecret_proof" in asked[1].content] == [proved, proved]
