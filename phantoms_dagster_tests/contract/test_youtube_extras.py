"""Caption tracks and thumbnails of published videos, against the stand-in: exactly one track, wherever a process dies."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from phantoms_dagster.domain.errors import Barred, Permanent, Throttled, Transient
from phantoms_dagster.domain.ports import ExtraJob
from phantoms_dagster.domain.publication import PublishedPost
from phantoms_dagster.platforms.youtube.choices import YouTubeChoices, YouTubeTerms
from phantoms_dagster.platforms.youtube.extras import YouTubeExtras
from phantoms_dagster.production.publication import publish
from phantoms_dagster_tests.contract.publishing_kit import MOMENTS, FakeJournal, Killed, SandboxTokens, at
from phantoms_dagster_tests.contract.test_youtube import World, make_job, world
from phantoms_dagster_tests.vendor_specs import errors, google_method

SRT = "1\n00:00:00,000 --> 00:00:02,400\nThe sea glows. 海は光る。\n"
JPEG = b"\xff\xd8\xff\xe0" + bytes(500)


@dataclasses.dataclass
class Posted:
    """A published video, and what adds to it."""

    world: World
    post: PublishedPost
    folder: Path

    def adder(self) -> YouTubeExtras:
        w = self.world
        return YouTubeExtras(client=w.client, base_url=w.base_url, tokens=SandboxTokens(), clock=w.clock, sandbox=True)

    def captions(self, **changes: Any) -> ExtraJob:
        job = ExtraJob("captions", "main", self.post.remote_id, "attempt-1", "en", subtitles=SRT)
        return dataclasses.replace(job, **changes)

    def thumbnail(self, content: bytes = JPEG) -> ExtraJob:
        picture = self.folder / "picture.jpg"
        picture.write_bytes(content)
        return ExtraJob("thumbnail", "main", self.post.remote_id, "attempt-1", "en", picture=picture)

    @property
    def tracks(self) -> list[dict[str, Any]]:
        return self.world.entries("youtube.caption")

    @property
    def units(self) -> int:
        return int(self.world.sandbox.state["youtube"].quota.used["units"])


@pytest.fixture
async def posted(tmp_path: Path) -> AsyncIterator[Posted]:
    async with world() as w:
        post = await publish(w.publisher, make_job(tmp_path), FakeJournal())
        w.sandbox.state["youtube"].quota.used.clear()
        w.sandbox.config["youtube.caption_seconds"] = 0
        w.transport.requests.clear()
        yield Posted(w, post, tmp_path)


async def test_a_caption_track_is_added_in_one_request_that_google_describes(posted: Posted) -> None:
    assert await posted.adder().add(posted.captions()) == "track attempt-1 in en"
    assert [(t["video"], t["language"], t["name"]) for t in posted.tracks] == [(posted.post.remote_id, "en", "attempt-1")]
    assert posted.units == 400
    [request] = posted.world.transport.requests
    method = google_method("POST", request.url.path)
    assert method.problems(dict(request.url.params)) == []
    described, file = re.split(rb"--\w{32}(?:--)?\r\n", request.content)[1:3]
    kind, body = described.split(b"\r\n\r\n", 1)
    assert kind == b"Content-Type: application/json; charset=UTF-8"
    assert errors(method.schema("Caption"), json.loads(body)) == []
    assert file.split(b"\r\n\r\n", 1)[1].decode() == f"{SRT}\r\n"


async def test_a_track_whose_answer_was_lost_is_found_and_not_added_again(posted: Posted) -> None:
    posted.world.fault("youtube.caption", "drop_after")
    with pytest.raises(Transient):
        await posted.adder().add(posted.captions())
    assert await posted.adder().add(posted.captions(again=True)) == "track attempt-1 in en"
    assert len(posted.tracks) == 1
    assert posted.units == 400 + 50  # the list costs less than a second insert


async def test_a_track_that_youtube_has_already_is_adopted(posted: Posted) -> None:
    """The process died before it could save that it would send the request, as only an older version can."""
    await posted.adder().add(posted.captions())
    assert await posted.adder().add(posted.captions()) == "track attempt-1 in en"
    assert len(posted.tracks) == 1


@pytest.mark.parametrize("moment", [m for m in MOMENTS if m in ("before send", "after answer")])
@pytest.mark.parametrize("number", range(1, 4))
@pytest.mark.parametrize("lost", [None, "drop_before", "drop_after", "status"])
async def test_there_is_exactly_one_track_wherever_the_process_dies(
    posted: Posted, moment: str, number: int, lost: str | None
) -> None:
    if lost is not None:
        posted.world.fault("youtube.caption", lost, **({"status": 503} if lost == "status" else {}))
    posted.world.transport.count, posted.world.transport.kill = 0, at(moment, number)
    again = False
    for _ in range(8):
        try:
            await posted.adder().add(posted.captions(again=again))
            break
        except (Killed, Transient):
            again = True
    assert len(posted.tracks) == 1


async def test_other_tracks_of_the_video_are_not_taken_for_ours(posted: Posted) -> None:
    await posted.adder().add(posted.captions(marker="another"))
    await posted.adder().add(posted.captions(language="de"))
    await posted.adder().add(posted.captions(again=True))
    assert [(t["name"], t["language"]) for t in posted.tracks] == [("another", "en"), ("attempt-1", "de"), ("attempt-1", "en")]


async def test_a_track_that_youtube_cannot_read_is_said(posted: Posted) -> None:
    with pytest.raises(Permanent, match="cannot use the caption track: unknownFormat"):
        await posted.adder().add(posted.captions(subtitles="no subtitles"))
    with pytest.raises(Permanent, match="unknownFormat"):
        await posted.adder().add(posted.captions(again=True))
    assert len(posted.tracks) == 1


@pytest.mark.parametrize(("subtitles", "outcome"), [(SRT, "added"), ("no subtitles", "refused")])
async def test_a_track_that_youtube_still_prepares_counts_as_added_only_when_it_is_served(
    posted: Posted, subtitles: str, outcome: str
) -> None:
    posted.world.sandbox.config["youtube.caption_seconds"] = 30
    with pytest.raises(Transient, match="still prepares it"):
        await posted.adder().add(posted.captions(subtitles=subtitles))
    posted.world.sandbox.advance(60)
    again = posted.adder().add(posted.captions(subtitles=subtitles, again=True))
    if outcome == "added":
        assert await again == "track attempt-1 in en"
    else:
        with pytest.raises(Permanent, match="unknownFormat"):
            await again
    assert posted.units == 400 + 50


async def test_the_quota_of_the_day_is_waited_for(posted: Posted) -> None:
    posted.world.sandbox.config["youtube.units_per_day"] = 399
    with pytest.raises(Throttled) as caught:
        await posted.adder().add(posted.captions())
    assert caught.value.code == "quotaExceeded"
    assert 0 < (caught.value.retry_after or 0) <= 90_000
    assert posted.tracks == []


async def test_captions_need_the_scope_force_ssl(posted: Posted) -> None:
    posted.world.sandbox.config["youtube.scopes"] = {"main": ["youtube.upload", "youtube.readonly"]}
    with pytest.raises(Barred):
        await posted.adder().add(posted.captions())


async def test_a_thumbnail_is_set_and_may_be_set_again(posted: Posted) -> None:
    for _ in range(2):
        assert await posted.adder().add(posted.thumbnail()) == f"{len(JPEG)} bytes"
    assert len({entry["sha256"] for entry in posted.world.entries("youtube.thumbnail")}) == 1
    assert posted.units == 100
    method = google_method("POST", posted.world.transport.requests[0].url.path)
    assert method.problems(dict(posted.world.transport.requests[0].url.params)) == []


async def test_an_account_that_may_not_set_thumbnails_is_told_how_to_get_there(posted: Posted) -> None:
    posted.world.sandbox.config["youtube.custom_thumbnails"] = False
    with pytest.raises(Permanent, match=r"verify its phone number at youtube.com/verify"):
        await posted.adder().add(posted.thumbnail())


async def test_too_many_thumbnails_are_a_matter_of_time_and_too_large_ones_are_not_sent(posted: Posted) -> None:
    body = '{"error":{"code":429,"message":"no","errors":[{"reason":"uploadRateLimitExceeded"}]}}'
    posted.world.fault("youtube.thumbnail", "status", status=429, body=body)
    with pytest.raises(Throttled):
        await posted.adder().add(posted.thumbnail())
    with pytest.raises(Permanent, match="2000001 bytes, and YouTube takes 2000000"):
        await posted.adder().add(posted.thumbnail(JPEG + bytes(2_000_001 - len(JPEG))))
    assert len(posted.world.transport.requests) == 1


@pytest.mark.parametrize(("notify", "sent"), [(None, "true"), (True, "true"), (False, "false")])
async def test_the_insert_says_whether_subscribers_are_notified(tmp_path: Path, notify: bool | None, sent: str) -> None:
    terms = None if notify is None else YouTubeTerms(notify_subscribers=notify)
    async with world() as w:
        await publish(w.publisher, make_job(tmp_path, terms=terms), FakeJournal())
        [opened] = [r for r in w.transport.requests if r.method == "POST"]
    assert opened.url.params["notifySubscribers"] == sent


@pytest.mark.parametrize("name", ["contains_synthetic_media", "containsSyntheticMedia", "ai_generated"])
def test_that_a_video_is_synthetic_cannot_be_denied(name: str) -> None:
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        YouTubeChoices.model_validate({name: False})


def test_a_reviewer_reads_what_is_added_and_nothing_if_the_channel_chose_nothing() -> None:
    assert YouTubeChoices().terms() is None
    terms = YouTubeChoices(captions=True, thumbnail=True, notify_subscribers=False).terms()
    assert terms is not None
    assert terms.summary() == "subscribers are not notified; with a caption track and a thumbnail after the publication"
    assert terms.extras() == ("captions", "thumbnail")
