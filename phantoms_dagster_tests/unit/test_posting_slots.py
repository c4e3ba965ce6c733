"""When a channel's slots are, in weeks whose clocks change, and which of them is the next free one."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantoms_dagster.domain.channels import parse
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.posting_slots import (
    DAYS,
    DayLimit,
    FreeSlot,
    PlannedPost,
    PostingSlot,
    earliest_at_distance,
    instant,
    next_free,
    slot_times,
)

YOUTUBE, TIKTOK = Platform("youtube"), Platform("tiktok")
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Auckland", "America/St_Johns"]


def utc(written: str) -> datetime:
    return datetime.fromisoformat(written).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "local", "expected"),
    [
        # Skipped times are the first instant after the gap.
        ("Europe/Berlin", "2026-03-29T02:00", "2026-03-29T01:00"),
        ("Europe/Berlin", "2026-03-29T02:30", "2026-03-29T01:00"),
        ("Europe/Berlin", "2026-03-29T02:59", "2026-03-29T01:00"),
        ("America/New_York", "2026-03-08T02:30", "2026-03-08T07:00"),
        ("Australia/Lord_Howe", "2026-10-04T02:15", "2026-10-03T15:30"),  # a gap of half an hour
        # The times beside the gap are as usual.
        ("Europe/Berlin", "2026-03-29T01:59", "2026-03-29T00:59"),
        ("Europe/Berlin", "2026-03-29T03:00", "2026-03-29T01:00"),
        ("Australia/Lord_Howe", "2026-10-04T02:30", "2026-10-03T15:30"),
        # Doubled times happen once: the first.
        ("Europe/Berlin", "2026-10-25T02:30", "2026-10-25T00:30"),
        ("America/New_York", "2026-11-01T01:30", "2026-11-01T05:30"),
        ("Australia/Lord_Howe", "2026-04-05T01:45", "2026-04-04T14:45"),
        # Any other day.
        ("Europe/Berlin", "2026-11-27T18:30", "2026-11-27T17:30"),
        ("Asia/Kolkata", "2026-11-27T18:30", "2026-11-27T13:00"),
    ],
)
def test_a_local_time_has_one_instant_even_when_the_clocks_change(zone: str, local: str, expected: str) -> None:
    wall = datetime.fromisoformat(local)
    assert instant(wall.date(), wall.time(), zone) == utc(expected)


@given(
    st.dates(date(2024, 1, 1), date(2035, 12, 31)),
    st.integers(0, 24 * 60 - 1),
    st.sampled_from(ZONES),
)
def test_an_instant_shows_its_local_time_or_the_first_one_after_the_gap(day: date, minute: int, zone: str) -> None:
    clock = time(*divmod(minute, 60))
    at = instant(day, clock, zone)
    local = at.astimezone(ZoneInfo(zone))
    wall = datetime.combine(day, clock)
    if local.replace(tzinfo=None) != wall:  # skipped
        before = (at - timedelta(minutes=1)).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        assert before < wall < local.replace(tzinfo=None)
        assert before + timedelta(minutes=1) <= wall
    else:
        assert local.fold == 0


@given(st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)), st.sampled_from(ZONES))  # noqa: DTZ001  hypothesis adds the zone
def test_a_daily_slot_comes_once_a_day_in_order_through_every_change_of_the_clocks(after: datetime, zone: str) -> None:
    slots = [PostingSlot(time="02:15"), PostingSlot(time="23:45")]
    found = list(islice(slot_times(slots, YOUTUBE, zone, after), 600))
    assert found == sorted(set(found))
    assert all(at > after for at in found)
    days = [at.astimezone(ZoneInfo(zone)).date() for at in found]
    assert {days.count(day) for day in set(days) - {days[0], days[-1]}} == {2}
    assert days[-1] - days[0] in (timedelta(days=299), timedelta(days=300))


def test_slots_are_on_their_days_and_platforms() -> None:
    slots = [PostingSlot(time="18:30", days=("mon", "wed"), platforms=(YOUTUBE,)), PostingSlot(time="09:00", days=("sat",))]
    friday = utc("2026-11-27T12:00")
    assert list(islice(slot_times(slots, YOUTUBE, "UTC", friday), 4)) == [
        utc("2026-11-28T09:00"),
        utc("2026-11-30T18:30"),
        utc("2026-12-02T18:30"),
        utc("2026-12-05T09:00"),
    ]
    assert list(islice(slot_times(slots, TIKTOK, "UTC", friday), 2)) == [utc("2026-11-28T09:00"), utc("2026-12-05T09:00")]


def test_a_slot_is_after_the_moment_that_is_asked_about() -> None:
    noon = utc("2026-11-27T12:00")
    assert next(slot_times([PostingSlot(time="12:00")], YOUTUBE, "UTC", noon)) == noon + timedelta(days=1)


def test_two_slots_in_the_skipped_hour_are_one_time() -> None:
    slots = [PostingSlot(time="02:10"), PostingSlot(time="02:50")]
    times = list(islice(slot_times(slots, YOUTUBE, "Europe/Berlin", utc("2026-03-28T12:00")), 3))
    assert times == [utc("2026-03-29T01:00"), utc("2026-03-30T00:10"), utc("2026-03-30T00:50")]


def free(
    *others: PlannedPost,
    slots: tuple[str, ...] = ("12:00", "18:00"),
    distance: int = 30,
    limits: tuple[DayLimit, ...] = (),
    account: str = "main",
) -> FreeSlot | None:
    times = slot_times([PostingSlot(time=one) for one in slots], YOUTUBE, "UTC", utc("2026-11-27T00:00"))
    return next_free(times, YOUTUBE, account, others=others, distance=timedelta(minutes=distance), limits=limits)


def planned(at: str, account: str = "main") -> PlannedPost:
    return PlannedPost(account, utc(at))


def test_the_first_slot_that_no_post_of_the_account_has_is_free() -> None:
    assert free() == FreeSlot(utc("2026-11-27T12:00"))
    assert free(planned("2026-11-27T12:00")) == FreeSlot(utc("2026-11-27T18:00"))
    assert free(planned("2026-11-27T12:00", "other")) == FreeSlot(utc("2026-11-27T12:00"))


@pytest.mark.parametrize(
    ("other", "is_free"),
    [("2026-11-27T11:30", True), ("2026-11-27T11:31", False), ("2026-11-27T12:29", False), ("2026-11-27T12:30", True)],
)
def test_a_slot_keeps_its_distance_to_posts_on_both_sides(other: str, is_free: bool) -> None:
    found = free(planned(other))
    assert found is not None
    assert (found.at == utc("2026-11-27T12:00")) is is_free


def test_without_a_distance_only_the_same_time_is_taken() -> None:
    assert free(planned("2026-11-27T12:00"), distance=0) == FreeSlot(utc("2026-11-27T18:00"))
    assert free(planned("2026-11-27T12:01"), distance=0) == FreeSlot(utc("2026-11-27T12:00"))


def test_a_day_whose_quota_is_reserved_is_passed_over_and_that_is_said() -> None:
    found = free(planned("2026-11-27T09:00", "other"), limits=(DayLimit(1, "UTC"),))
    assert found == FreeSlot(utc("2026-11-28T12:00"), ("YouTube's quota of Fri 27 Nov (UTC) is reserved: 1 of 1 posts",))


def test_the_day_of_a_quota_is_the_one_of_its_own_time_zone() -> None:
    # 12:00 UTC is 04:00 in Los Angeles: 06:00 UTC is still the day before there.
    assert free(planned("2026-11-27T06:00", "other"), limits=(DayLimit(1, "America/Los_Angeles"),)) == FreeSlot(
        utc("2026-11-27T12:00")
    )


def test_a_quota_of_24_hours_counts_the_account_alone_on_both_sides() -> None:
    limit = (DayLimit(2),)
    assert free(planned("2026-11-26T13:00"), planned("2026-11-27T11:00"), limits=limit).at == utc("2026-11-27T18:00")  # type: ignore[union-attr]
    assert free(planned("2026-11-27T13:00"), planned("2026-11-28T11:00"), limits=limit).at == utc("2026-11-28T18:00")  # type: ignore[union-attr]
    others = [planned("2026-11-26T13:00", "b"), planned("2026-11-27T11:00", "b")]
    assert free(*others, limits=limit) == FreeSlot(utc("2026-11-27T12:00"))


def test_when_nothing_fits_there_is_no_slot() -> None:
    assert free(limits=(DayLimit(0, "UTC"),)) is None
    assert free(slots=()) is None


@given(st.lists(st.integers(0, 72 * 60), max_size=12), st.integers(0, 180))
def test_the_earliest_time_keeps_its_distance_and_nothing_earlier_does(minutes: list[int], distance: int) -> None:
    start = utc("2026-11-27T00:00")
    others = [PlannedPost("main", start + timedelta(minutes=m)) for m in minutes]
    at = earliest_at_distance("main", start + timedelta(hours=6), others=others, distance=timedelta(minutes=distance))
    assert at >= start + timedelta(hours=6)

    def fits(moment: datetime) -> bool:
        return all(moment != one.at and abs(moment - one.at) >= timedelta(minutes=distance) for one in others)

    assert fits(at)
    earlier = start + timedelta(hours=6)
    while earlier < at:
        assert not fits(earlier)
        earlier += timedelta(minutes=1)


# --- channels.yaml

ONE = """channels:
  sea:
    title: Sea
    brand_voice: calm
    accounts: {youtube: main, tiktok: main}
    tiktok: {privacy: SELF_ONLY, comments: false, duets: false, stitches: false, your_brand: false, branded_content: false}
"""


def test_slots_are_read_as_people_write_them() -> None:
    text = ONE + '    slots:\n      - {time: 9:05, days: [Monday, wed], platforms: [youtube]}\n      - {time: "18:30"}\n'
    [channel] = parse(text + "    missed: ask\n    repeats: {days: 30}\n").values()
    assert channel.slots == (
        PostingSlot(time="09:05", days=("mon", "wed"), platforms=(YOUTUBE,)),
        PostingSlot(time="18:30", days=DAYS),
    )
    assert (channel.missed, channel.repeats.days, channel.repeats.percent) == ("ask", 30, 85)
    assert channel.has_slots(TIKTOK)


def test_a_channel_without_slots_has_none() -> None:
    [channel] = parse(ONE).values()
    assert not channel.has_slots(YOUTUBE)
    assert (channel.missed, channel.min_distance_minutes, channel.repeats.days) == ("post", 30, 0)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("slots: [{time: 25:00}]", "line 7: channel 'sea': slots.0.time: '25:00' is not a time of day"),
        ("slots: [{time: half six}]", "slots.0.time: 'half six' is not a time of day"),
        ("slots: [{time: '18:30:15'}]", "slots.0.time: '18:30:15' is not a time of day"),
        ("slots: [{days: [mon]}]", "slots.0.time: is missing; write it like"),
        ("slots: [{time: 18:30, days: [someday]}]", "slots.0.days.0: should be"),
        ("slots: [{time: 18:30, platforms: [instagram]}]", "slots.0.platforms: there is no Instagram account under `accounts`"),
        ("slots: [{time: 18:30, at: noon}]", "slots.0.at: is not a known key"),
        ("slots: 18:30", "slots: should be a list"),
        ("slots: [{time: 18:30}, {time: 18:45}]", "slots.1: 18:45 on mon is 15 minutes from the slot at 18:30 on YouTube"),
        ("slots: [{time: 23:50, days: [sun]}, {time: 00:05, days: [mon]}]", "slots.1: 00:05 on mon is 15 minutes from"),
        ("slots: [{time: 22:00}]\n    posting_hours: {start: 9, end: 21}", "22:00 is outside the posting hours from 9:00 to 21:00"),
        ("missed: never", "missed: should be"),
        ("min_distance_minutes: 2000", "min_distance_minutes: should be at most 1440"),
        ("repeats: {days: 400}", "repeats.days: should be at most 365"),
        ("repeats: {percent: 20}", "repeats.percent: should be at least 50"),
    ],
)
def test_a_mistake_in_a_slot_names_its_line_and_the_right_form(written: str, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(f"{ONE}    {written}\n")
    assert said in str(caught.value)
    assert "write it like" in str(caught.value)


def test_slots_of_different_platforms_may_be_close_to_each_other() -> None:
    [channel] = parse(ONE + "    slots: [{time: 18:30, platforms: [youtube]}, {time: 18:35, platforms: [tiktok]}]\n").values()
    assert len(channel.slots) == 2


@given(st.lists(st.integers(-30, 30), max_size=8), st.integers(1, 4))
def test_no_24_hours_ever_have_more_posts_than_the_quota(hours: list[int], most: int) -> None:
    at = datetime(2026, 11, 26, 12, tzinfo=UTC)
    others = [PlannedPost("main", at + timedelta(hours=hour, minutes=1)) for hour in hours]
    all_times = [at, *(one.at for one in others)]
    # Every 24 hours that matter begin with a post.
    windows = [[moment for moment in all_times if start <= moment < start + timedelta(days=1)] for start in all_times]
    breaks = any(at in window and len(window) > most for window in windows)
    found = next_free(iter([at]), YOUTUBE, "main", others=others, distance=timedelta(0), limits=[DayLimit(most)])
    assert (found is None) == breaks
