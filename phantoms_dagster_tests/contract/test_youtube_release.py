"""Videos that YouTube makes public by its own clock: either YouTube's clock or ours, never both, and one post whatever dies."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from phantoms_dagster.domain.errors import NotYet, Rejected, Transient, Unknown
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.platforms.youtube.choices import LEAD, YouTubeChoices
from phantoms_dagster.production.publication import publish
from phantoms_dagster_tests.contract.publishing_kit import MOMENTS, FakeJournal, Killed, at
from phantoms_dagster_tests.contract.test_youtube import World, make_job, world
from phantoms_dagster_tests.vendor_specs import google_method


class Slot:
    """A post whose time is in a quarter of an hour, as `production.stages.post` makes it."""

    def __init__(self, w: World, folder: Path) -> None:
        self.world = w
        self.time = w.clock.now() + LEAD
        self.job: PublishJob = make_job(folder, release_at=self.release_at)

    async def release_at(self) -> datetime | None:
        return self.time if self.time > self.world.clock.now() else None

    def statuses(self) -> list[dict[str, Any]]:
        """The status of each update that was sent."""
        sent = [r for r in self.world.transport.requests if r.method == "PUT" and r.url.path.endswith("/v3/videos")]
        return [json.loads(r.content)["status"] for r in sent if "upload" not in r.url.path]

    async def until_published(self, journal: FakeJournal, *, tries: int = 30) -> None:
        for _ in range(tries):
            try:
                await publish(self.world.publisher, self.job, journal)
            except Killed:
                self.world.sandbox.advance(1)
            except (Transient, Unknown, NotYet) as later:
                self.world.sandbox.advance((later.retry_after or 0) + 1)
            else:
                return
        raise AssertionError(journal.states)


@pytest.fixture
async def slot(tmp_path: Path) -> AsyncIterator[Slot]:
    async with world() as w:
        yield Slot(w, tmp_path)


def rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def test_youtube_is_given_the_time_and_makes_the_video_public_itself(slot: Slot) -> None:
    journal = FakeJournal(clock=slot.world.clock)
    with pytest.raises(NotYet, match=r"YouTube makes video .* public at") as caught:
        await publish(slot.world.publisher, slot.job, journal)
    assert caught.value.until is not None
    assert caught.value.until - slot.time < timedelta(minutes=1)
    assert (journal.record.state, slot.world.entries("post")) == (PostState.COMMITTING, [])
    [status] = slot.statuses()
    assert (status["privacyStatus"], status["publishAt"]) == ("private", rfc3339(slot.time))
    assert status["containsSyntheticMedia"] is True
    slot.world.sandbox.advance(LEAD.total_seconds() + 31)
    post = await publish(slot.world.publisher, slot.job, journal)
    assert len(slot.statuses()) == 1  # only YouTube's clock
    [entry] = slot.world.entries("post")
    assert (entry["remote_id"], entry["privacy"], journal.record.state) == (post.remote_id, "public", PostState.CONFIRMED)
    assert post.published_at >= slot.time.replace(microsecond=0)


async def test_the_update_with_a_time_is_valid_by_googles_discovery_document(slot: Slot) -> None:
    with pytest.raises(NotYet):
        await publish(slot.world.publisher, slot.job, FakeJournal())
    [update] = [r for r in slot.world.transport.requests if r.method == "PUT" and r.url.path == "/youtube/v3/videos"]
    assert google_method("PUT", update.url.path).problems(dict(update.url.params), json.loads(update.content)) == []


async def test_before_its_time_the_video_is_read_and_never_made_public_by_us(slot: Slot) -> None:
    journal = FakeJournal(clock=slot.world.clock)
    for _ in range(5):
        with pytest.raises(NotYet):
            await publish(slot.world.publisher, slot.job, journal)
        slot.world.sandbox.advance(60)
    assert len(slot.statuses()) == 1
    assert slot.world.entries("post") == []


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", range(1, 10))
async def test_one_post_goes_out_and_not_before_its_time_wherever_the_process_dies(slot: Slot, moment: str, number: int) -> None:
    kill = at(moment, number)
    journal = FakeJournal(clock=slot.world.clock, kill=kill)
    slot.world.transport.kill = kill
    await slot.until_published(journal)
    [entry] = slot.world.entries("post")
    assert (entry["remote_id"], journal.record.state) == (journal.record.remote_id, PostState.CONFIRMED)
    assert len(slot.world.entries("youtube.video")) == 1
    assert {status["privacyStatus"] for status in slot.statuses()} == {"private"}


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "status"])
async def test_an_answer_lost_while_the_time_is_given_leaves_one_post(slot: Slot, kind: str) -> None:
    slot.world.fault("youtube.update", kind, **({"status": 503} if kind == "status" else {}))
    journal = FakeJournal(clock=slot.world.clock)
    await slot.until_published(journal)
    assert len(slot.world.entries("post")) == 1
    assert {status["privacyStatus"] for status in slot.statuses()} == {"private"}


async def test_a_process_that_comes_back_after_the_time_makes_the_video_public_itself(slot: Slot) -> None:
    """It died before YouTube was given the time, so nobody but us can make the video public."""
    slot.world.fault("youtube.update", "drop_before")
    journal = FakeJournal(clock=slot.world.clock)
    with pytest.raises(Unknown):
        await publish(slot.world.publisher, slot.job, journal)
    slot.world.sandbox.advance(3_600)
    await publish(slot.world.publisher, slot.job, journal)
    assert "publishAt" not in slot.statuses()[-1]
    assert [entry["privacy"] for entry in slot.world.entries("post")] == ["public"]


async def test_a_time_that_is_over_on_youtubes_clock_publishes_at_once(slot: Slot) -> None:
    """YouTube's clock is an hour ahead of ours."""
    slot.world.clock.offset = -3_600.0
    slot.time = slot.world.clock.now() + timedelta(minutes=15)
    journal = FakeJournal(clock=slot.world.clock)
    await publish(slot.world.publisher, slot.job, journal)
    assert [entry["privacy"] for entry in slot.world.entries("post")] == ["public"]
    assert journal.record.state is PostState.CONFIRMED


async def test_a_schedule_that_youtube_answers_without_its_time_is_not_taken_for_a_locked_video(slot: Slot) -> None:
    """How soon a video with a time in the past reads back as public is not documented."""
    body = '{"kind":"youtube#video","id":"x","status":{"privacyStatus":"private"}}'
    slot.world.fault("youtube.update", "status", status=200, body=body)
    journal = FakeJournal(clock=slot.world.clock)
    with pytest.raises(NotYet):
        await publish(slot.world.publisher, slot.job, journal)
    await slot.until_published(journal)
    assert len(slot.world.entries("post")) == 1


async def test_a_time_that_youtube_refuses_is_waited_for_on_our_clock(slot: Slot) -> None:
    body = '{"error":{"code":400,"message":"no","errors":[{"reason":"invalidPublishAt"}]}}'
    slot.world.fault("youtube.update", "status", status=400, body=body)
    journal = FakeJournal(clock=slot.world.clock)
    with pytest.raises(NotYet) as caught:
        await publish(slot.world.publisher, slot.job, journal)
    assert caught.value.until is not None
    assert caught.value.until > slot.time
    slot.world.sandbox.advance(caught.value.retry_after)
    await publish(slot.world.publisher, slot.job, journal)
    assert [status["privacyStatus"] for status in slot.statuses()] == ["private", "public"]
    assert len(slot.world.entries("post")) == 1


async def test_a_video_that_youtube_does_not_release_is_left_to_a_person(slot: Slot) -> None:
    journal = FakeJournal(clock=slot.world.clock)
    with pytest.raises(NotYet):
        await publish(slot.world.publisher, slot.job, journal)
    [video] = slot.world.sandbox.state["youtube"].videos.values()
    video.status["publishAt"] = rfc3339(slot.time + timedelta(days=1))  # moved in YouTube Studio
    slot.world.sandbox.advance(3_600)
    with pytest.raises(NotYet):
        await publish(slot.world.publisher, slot.job, journal)
    slot.world.sandbox.config["youtube.late_release_seconds"] = 1e9
    slot.world.sandbox.advance(90_000)
    with pytest.raises(Rejected, match=r"has not made video .* public at its time"):
        await publish(slot.world.publisher, slot.job, journal)
    assert {status["privacyStatus"] for status in slot.statuses()} == {"private"}
    assert journal.record.state is PostState.COMMITTING
    slot.world.sandbox.config["youtube.late_release_seconds"] = 0
    await publish(slot.world.publisher, slot.job, journal)
    assert len(slot.world.entries("post")) == 1


async def test_a_post_that_is_not_for_everybody_waits_for_our_clock(slot: Slot) -> None:
    """YouTube's clock can only make a video public."""
    slot.job = replace(slot.job, privacy="unlisted")
    journal = FakeJournal(clock=slot.world.clock)
    with pytest.raises(NotYet) as caught:
        await publish(slot.world.publisher, slot.job, journal)
    assert (caught.value.until, slot.statuses()) == (slot.time, [])
    await slot.until_published(journal)
    assert [(status["privacyStatus"], "publishAt" in status) for status in slot.statuses()] == [("unlisted", False)]
    assert slot.world.clock.now() >= slot.time


def test_a_channel_that_leaves_the_time_to_youtube_hands_its_videos_over_earlier() -> None:
    terms = YouTubeChoices(release="youtube").terms()
    assert terms is not None
    assert (terms.lead(), terms.summary()) == (timedelta(minutes=15), "YouTube makes it public at its time")
