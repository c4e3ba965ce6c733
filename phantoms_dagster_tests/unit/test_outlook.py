"""What a stage waits for, in words, and the command for the person."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from phantoms_dagster.domain.outlook import Outage, VideoSummary, WaitingStage, next_steps, note, summarize

NOW = datetime(2026, 11, 26, 22, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=2, minutes=40)
POSTS = frozenset({"youtube/post"})


def say(moment: datetime) -> str:
    return f"{moment:%H:%M} UTC"


def said(stage: str, waiting: WaitingStage, *outages: Outage, **accounts: str) -> str:
    return note(stage, waiting, now=NOW, say=say, outages=outages, accounts=accounts)


def test_a_post_with_a_later_time_is_scheduled_for_it() -> None:
    assert said("youtube/post", WaitingStage("ready", ready_at=LATER)) == "scheduled for 00:40 UTC"
    assert said("youtube/post", WaitingStage("ready", ready_at=NOW - timedelta(minutes=1))) == ""


def test_a_post_outside_its_channels_hours_is_scheduled_for_their_beginning() -> None:
    waiting = WaitingStage("deferred", retry_at=LATER, reason="goes out at 2026-11-27 00:40 UTC")
    assert said("youtube/post", waiting) == "scheduled for 00:40 UTC"


@pytest.mark.parametrize("state", ["ready", "running", "deferred"])
def test_an_open_breaker_is_shown_on_each_video_that_waits_for_it_whatever_its_state(state: str) -> None:
    outage = Outage("sandbox/youtube", POSTS, until=LATER)
    waiting = WaitingStage(state, retry_at=LATER, reason="the breaker of sandbox/youtube is open")
    assert said("youtube/post", waiting, outage) == "waits: the breaker of sandbox/youtube is open, probed from 00:40 UTC on"
    assert "breaker" not in said("tiktok/post", waiting, outage)


def test_a_breaker_that_a_person_opened_says_how_it_is_closed() -> None:
    found = said("youtube/post", WaitingStage("ready"), Outage("youtube", POSTS))
    assert found == "waits: the breaker of youtube is open, until `phantoms breakers reset youtube`"


def test_the_breaker_of_one_account_stops_that_accounts_videos_alone() -> None:
    outage = Outage("youtube:main", POSTS, account="main", probing=True)
    assert said("youtube/post", WaitingStage("ready"), outage, youtube="main").endswith("open, a probe is under way")
    assert said("youtube/post", WaitingStage("ready"), outage, youtube="second") == ""


@pytest.mark.parametrize("state", ["done", "failed", "blocked", "discarded", "rejected"])
def test_what_has_ended_or_cannot_begin_waits_for_no_breaker(state: str) -> None:
    assert said("youtube/post", WaitingStage(state), Outage("youtube", POSTS)) == ""


def test_a_failure_is_shown_before_everything_else_about_the_video() -> None:
    waiting = {
        "youtube/post": WaitingStage("ready", ready_at=LATER),
        "tiktok/post": WaitingStage("failed"),
        "tiktok/variant": WaitingStage("running"),
    }
    assert summarize(waiting, now=NOW, say=say) == VideoSummary("tiktok/post", "failed", "", 0)
    two = {"youtube/post": WaitingStage("ready", ready_at=LATER), "tiktok/post": WaitingStage("ready", ready_at=LATER)}
    assert summarize(two, now=NOW, say=say) == VideoSummary("youtube/post", "ready", "scheduled for 00:40 UTC", 1)
    assert summarize({}, now=NOW, say=say) is None


def test_a_person_is_told_what_to_type_for_a_failure_and_for_a_rejection() -> None:
    failed = next_steps("eels-1", {"youtube/post": WaitingStage("failed"), "tiktok/post": WaitingStage("failed")})
    assert failed[0] == "phantoms dead-letters show eels-1    # why youtube/post and tiktok/post failed"
    assert failed[1].startswith("phantoms dead-letters replay eels-1 ")
    assert next_steps("eels-1", {"approval": WaitingStage("rejected")})[0].startswith("phantoms retry eels-1 --from script ")
    assert next_steps("eels-1", {"script": WaitingStage("deferred")}) == []
