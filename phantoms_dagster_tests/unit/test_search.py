"""The search of the desk understands words and qualifiers, and says what is wrong with those it does not know."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.search import parse, suggestions

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
CHANNELS = ("curious", "facts")


def test_words_and_qualifiers_are_distinguished() -> None:
    found = parse(
        'Ocean stage:render state:deferred channel:curious since:6h platform:tiktok "deep sea"', now=NOW, channels=CHANNELS
    )
    assert found.words == ("ocean", "deep", "sea")
    assert found.stages == ("rendered_video",)
    assert (found.state, found.channel, found.platform) == ("deferred", "curious", "tiktok")
    assert found.since == NOW - timedelta(hours=6)


def test_a_kind_of_stage_means_those_of_all_platforms() -> None:
    assert parse("stage:post", now=NOW).stages == tuple(f"{platform}/post" for platform in Platform)
    assert parse("stage:TikTok/post", now=NOW).stages == ("tiktok/post",)


def test_a_key_is_found_by_its_parts_and_nothing_narrows_an_empty_search() -> None:
    assert parse("ocean-facts-20261122-7f3a", now=NOW).words == ("ocean", "facts", "20261122", "7f3a")
    empty = parse("   ", now=NOW)
    assert (empty.words, empty.of_stages, empty.since) == ((), False, None)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("stat:failed", r"no qualifier 'stat' \(did you mean stat[a-z]+\?\); there are stage, state"),
        ("state:faild", r"no state 'faild' \(did you mean failed\?\)"),
        ("stage:scrpt", r"no stage 'scrpt' \(did you mean"),
        ("state:", "state: needs a value, such as state:failed"),
        ("state:failed state:ready", "state: appears twice"),
        ("channel:nobody", "no channel 'nobody'; there are curious, facts"),
        ("platform:myspace", "no platform 'myspace'"),
        ("since:yesterday", "since:yesterday is not a time; give 30m, 6h, 2d"),
        ("since:999999w", "is not a time"),
        ("priority:10", r"give 0 \(first\) to 9"),
        ('"deep sea', "a quotation mark is not closed"),
        ("a b c d e f g h i", "at most 8 words"),
        ("x" * 301, "at most 300 characters"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_what_would_be(typed: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse(typed, now=NOW, channels=CHANNELS)


def test_everything_that_is_suggested_is_understood() -> None:
    for one in suggestions(CHANNELS):
        parse(one, now=NOW, channels=CHANNELS)


@given(st.text(max_size=60))
def test_nothing_that_is_typed_breaks_it(typed: str) -> None:
    try:
        found = parse(typed, now=NOW)
    except InvalidInput:
        return
    assert all(word.isalnum() or word for word in found.words)
