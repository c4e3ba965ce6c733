"""When a channel's next post may go out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantoms_dagster.domain.models import Channel, Platform, PostingHours
from phantoms_dagster.production.stages.post import next_opening

zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Auckland", "Australia/Lord_Howe"])
moments = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001  hypothesis adds the zone
hours = st.tuples(st.integers(0, 23), st.integers(0, 24)).filter(lambda pair: pair[0] != pair[1] % 24 or pair[1] == 24)


def channel(start: int = 0, end: int = 24, zone: str = "UTC") -> Channel:
    return Channel(
        name="facts",
        title="Facts",
        brand_voice="calm",
        accounts={Platform("youtube"): "main"},
        timezone=zone,
        posting_hours=PostingHours(start=start, end=end),
    )


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("earliest", "opening"),
    [
        ("2026-11-22T12:00", "2026-11-22T12:00"),
        ("2026-11-22T08:59", "2026-11-22T09:00"),
        ("2026-11-22T09:00", "2026-11-22T09:00"),
        ("2026-11-22T17:59:59", "2026-11-22T17:59:59"),
        ("2026-11-22T18:00", "2026-11-23T09:00"),
        ("2026-12-31T23:30", "2027-01-01T09:00"),
    ],
)
def test_a_post_goes_out_at_once_within_the_hours_and_else_when_they_begin(earliest: str, opening: str) -> None:
    assert next_opening(channel(9, 18), utc(earliest)) == utc(opening)


@pytest.mark.parametrize(
    ("earliest", "opening"),
    [
        ("2026-11-22T19:59", "2026-11-22T20:00"),
        ("2026-11-22T20:00", "2026-11-22T20:00"),
        ("2026-11-22T23:59", "2026-11-22T23:59"),
        ("2026-11-23T01:59", "2026-11-23T01:59"),
        ("2026-11-23T02:00", "2026-11-23T20:00"),
    ],
)
def test_the_hours_may_go_over_midnight(earliest: str, opening: str) -> None:
    assert next_opening(channel(20, 2), utc(earliest)) == utc(opening)


def test_the_hours_are_those_of_the_channels_own_day() -> None:
    new_york = channel(9, 18, "America/New_York")
    assert next_opening(new_york, utc("2026-11-22T12:00")) == utc("2026-11-22T14:00")
    assert next_opening(new_york, utc("2026-11-23T01:00")) == utc("2026-11-23T14:00")


def test_the_opening_keeps_its_local_hour_when_the_clocks_change_over_night() -> None:
    berlin = channel(9, 18, "Europe/Berlin")
    assert next_opening(berlin, utc("2026-03-28T20:00")) == utc("2026-03-29T07:00")
    assert next_opening(berlin, utc("2026-10-24T20:00")) == utc("2026-10-25T08:00")


@given(moments, zones)
def test_a_channel_that_posts_around_the_clock_never_waits(moment: datetime, zone: str) -> None:
    assert next_opening(channel(zone=zone), moment) == moment


@given(moments, hours, zones)
def test_an_opening_is_never_early_never_more_than_a_day_away_and_always_within_the_hours(
    moment: datetime, span: tuple[int, int], zone: str
) -> None:
    start, end = span
    opening = next_opening(channel(start, end, zone), moment)
    assert timedelta(0) <= opening - moment <= timedelta(hours=25)
    local = opening.astimezone(ZoneInfo(zone))
    # An hour that the change to summer time skips begins when the clocks have been put forward.
    assert local.hour in PostingHours(start=start, end=end) or local.hour == start + 1
