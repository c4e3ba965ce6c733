"""When an extra of a post is tried again, and the subtitles that are sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from phantoms_dagster.domain.errors import (
    Barred,
    Disconnected,
    NotFound,
    NotYet,
    Permanent,
    PhantomsError,
    Rejected,
    Throttled,
    Transient,
    Unknown,
)
from phantoms_dagster.domain.models import Platform, Sentence
from phantoms_dagster.domain.post_extras import MOST_TRIES, PendingExtra, after_failure
from phantoms_dagster.domain.subtitles import MOST_CELLS, srt

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


def extra(tries: int = 0, *, age: timedelta = timedelta(minutes=5)) -> PendingExtra:
    platform = Platform("youtube")
    return PendingExtra(1, "captions", "key", platform, "main", "r", "m", NOW - age, tries, "en", current=True)


@pytest.mark.parametrize(
    ("error", "tries", "minutes"),
    [
        (Transient("away", provider="youtube"), 1, 1),
        (Unknown("lost", provider="youtube"), 1, 1),
        (Throttled("quota", provider="youtube", retry_after=7_200), 0, 120),
        (Throttled("pace", provider="youtube"), 0, 1),
        (NotYet("busy", retry_after=5), 0, 1),
        (Disconnected("token", provider="youtube"), 0, 60),
        (Barred("scope", provider="youtube"), 0, 60),
    ],
)
def test_what_may_pass_is_tried_again_and_only_a_sent_request_costs_a_try(error: PhantomsError, tries: int, minutes: int) -> None:
    outcome = after_failure(error, extra(), NOW)
    assert (outcome.state, outcome.tries, outcome.due_at) == ("waiting", tries, NOW + timedelta(minutes=minutes))


@pytest.mark.parametrize(
    "error", [Permanent("no", provider="youtube"), Rejected("policy", provider="youtube"), NotFound("no picture")]
)
def test_what_cannot_pass_is_said_once_and_not_tried_again(error: PhantomsError) -> None:
    outcome = after_failure(error, extra(), NOW)
    assert (outcome.state, outcome.detail, outcome.due_at) == ("refused", str(error), None)


def test_the_pauses_grow_and_the_tries_end() -> None:
    pauses = []
    for tries in range(MOST_TRIES - 1):
        outcome = after_failure(Transient("away", provider="youtube"), extra(tries), NOW)
        assert outcome.due_at is not None
        pauses.append((outcome.due_at - NOW) / timedelta(minutes=1))
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360]
    last = after_failure(Transient("away", provider="youtube"), extra(MOST_TRIES - 1), NOW)
    assert (last.state, last.detail) == ("refused", "given up after 12 tries: away")


def test_after_a_week_nothing_is_waited_for() -> None:
    outcome = after_failure(Throttled("quota", provider="youtube"), extra(age=timedelta(days=8)), NOW)
    assert (outcome.state, outcome.detail) == ("refused", "given up after 7 days: quota")


def sentence(text: str, start: float, end: float) -> Sentence:
    return Sentence(text=text, scene=0, start=start, end=end)


def test_each_sentence_is_a_subtitle_with_its_times() -> None:
    assert srt([sentence("The sea glows.", 0, 2.4), sentence("Why?", 3_661.0015, 3_662.25)]) == (
        "1\n00:00:00,000 --> 00:00:02,400\nThe sea glows.\n\n2\n01:01:01,002 --> 01:01:02,250\nWhy?\n"
    )
    assert srt([]) == ""


@pytest.mark.parametrize("text", ["Eels cross an ocean to spawn and nobody has ever seen them do it there. " * 3, "海は光る" * 40])
def test_a_long_sentence_is_cut_into_parts_that_share_its_time(text: str) -> None:
    blocks = srt([sentence(text.strip(), 1.0, 11.0)]).split("\n\n")
    assert len(blocks) >= 3
    lines = [block.split("\n") for block in blocks]
    shown = [line[2] for line in lines]
    joined = " ".join(shown) if " " in text else "".join(shown)
    assert joined == text.strip()
    assert all(len(part) <= MOST_CELLS for part in shown)
    times = [line[1].split(" --> ") for line in lines]
    assert (times[0][0], times[-1][1]) == ("00:00:01,000", "00:00:11,000")
    assert all(a[1] == b[0] for a, b in pairwise(times))
