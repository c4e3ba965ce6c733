"""Local times around the clock changes in New York and Berlin."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.local_times import happens_twice, is_skipped, read_local, start_of_day

NEW_YORK, BERLIN = "America/New_York", "Europe/Berlin"


@pytest.mark.parametrize(
    ("written", "zone", "utc"),
    [
        ("2026-03-08T01:59", NEW_YORK, "2026-03-08T06:59"),
        ("2026-03-08T03:00", NEW_YORK, "2026-03-08T07:00"),
        ("2026-03-29T01:59", BERLIN, "2026-03-29T00:59"),
        ("2026-03-29T03:00", BERLIN, "2026-03-29T01:00"),
        ("2026-11-01T00:59", NEW_YORK, "2026-11-01T04:59"),
        ("2026-11-01T02:00", NEW_YORK, "2026-11-01T07:00"),
        ("2026-10-25T18:00", BERLIN, "2026-10-25T17:00"),
        ("2026-10-24T18:00", BERLIN, "2026-10-24T16:00"),
    ],
)
def test_a_time_by_the_wall_is_the_moment_that_the_clocks_of_that_day_show(written: str, zone: str, utc: str) -> None:
    assert read_local(written, zone) == datetime.fromisoformat(f"{utc}+00:00")


@pytest.mark.parametrize(
    ("written", "zone", "shown"), [("2026-03-08T02:30", NEW_YORK, "03:30"), ("2026-03-29T02:00", BERLIN, "03:00")]
)
def test_a_time_that_the_clocks_skip_is_refused_with_the_next_one(written: str, zone: str, shown: str) -> None:
    for later in (False, True):
        with pytest.raises(InvalidInput, match=f"skip {written[-5:]} .* the time after it is {shown}"):
            read_local(written, zone, later=later)
    assert is_skipped(datetime.fromisoformat(written), zone)
    assert not happens_twice(datetime.fromisoformat(written), zone)


@pytest.mark.parametrize(
    ("written", "zone", "first", "second"),
    [("2026-11-01T01:30", NEW_YORK, "05:30", "06:30"), ("2026-10-25T02:30", BERLIN, "00:30", "01:30")],
)
def test_a_time_that_happens_twice_is_the_first_one_unless_the_second_is_asked_for(
    written: str, zone: str, first: str, second: str
) -> None:
    assert f"{read_local(written, zone):%H:%M}" == first
    assert f"{read_local(written, zone, later=True):%H:%M}" == second
    assert happens_twice(datetime.fromisoformat(written), zone)
    assert not is_skipped(datetime.fromisoformat(written), zone)


@pytest.mark.parametrize(
    "written", ["", "tomorrow", "2026-13-01T10:00", "2026-12-24T18:00Z", "0001-01-01T00:00", "9999-12-31T23:59"]
)
def test_a_text_that_is_not_a_time_is_refused_with_the_right_form(written: str) -> None:
    with pytest.raises(InvalidInput, match="write it like 2026-12-24T18:00"):
        read_local(written, BERLIN)


def test_days_begin_at_midnight_by_the_wall() -> None:
    day = date(2026, 10, 25)
    assert start_of_day(day, BERLIN) == datetime(2026, 10, 24, 22, tzinfo=UTC)
    assert start_of_day(day, BERLIN, after=1) == datetime(2026, 10, 25, 23, tzinfo=UTC)
