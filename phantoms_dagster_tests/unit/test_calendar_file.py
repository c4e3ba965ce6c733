"""The text of a calendar, as RFC 5545 wants it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from phantoms_dagster.desk.calendar_file import CalendarEvent, written_calendar

EVENT = CalendarEvent(
    uid="octopuses-youtube@phantoms",
    at=datetime(2026, 11, 26, 9, 30, tzinfo=UTC),
    duration=timedelta(minutes=15),
    summary="Why octopuses have three hearts",
    description="YouTube account main",
    status="CONFIRMED",
    category="YouTube",
    changed_at=datetime(2026, 11, 25, 8, 0, 1, tzinfo=UTC),
    sequence=3,
    url="https://desk.example/calendar/octopuses",
)
words = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp", "Cs")), max_size=300)


def written(*events: CalendarEvent, name: str = "Phantoms") -> bytes:
    return written_calendar(name, events, refresh=timedelta(hours=1))


def unfolded(text: bytes) -> list[str]:
    return text.replace(b"\r\n ", b"").decode().split("\r\n")[:-1]


def test_a_calendar_has_every_line_that_the_standard_requires() -> None:
    assert unfolded(written(EVENT)) == [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//Phantoms//Calendar//EN",
        "NAME:Phantoms",
        "X-WR-CALNAME:Phantoms",
        "REFRESH-INTERVAL;VALUE=DURATION:PT1H",
        "X-PUBLISHED-TTL:PT1H",
        "BEGIN:VEVENT",
        "UID:octopuses-youtube@phantoms",
        "DTSTAMP:20261125T080001Z",
        "LAST-MODIFIED:20261125T080001Z",
        "SEQUENCE:3",
        "DTSTART:20261126T093000Z",
        "DURATION:PT15M",
        "SUMMARY:Why octopuses have three hearts",
        "DESCRIPTION:YouTube account main",
        "URL:https://desk.example/calendar/octopuses",
        "STATUS:CONFIRMED",
        "CATEGORIES:YouTube",
        "TRANSP:TRANSPARENT",
        "END:VEVENT",
        "END:VCALENDAR",
    ]


def test_times_are_in_utc() -> None:
    berlin = datetime(2026, 11, 26, 9, 30, tzinfo=timezone(timedelta(hours=1)))
    assert "DTSTART:20261126T083000Z" in unfolded(written(replace(EVENT, at=berlin)))


def test_texts_are_escaped_and_have_no_control_characters() -> None:
    text = unfolded(written(replace(EVENT, summary="a;b,c\\d\r\ne\x07f")))
    assert "SUMMARY:a\\;b\\,c\\\\d\\nef" in text


def test_no_text_ends_its_line_and_begins_another_property() -> None:
    text = unfolded(written(replace(EVENT, summary="x\r\nATTACH:http://evil.example/\u2028STATUS:CANCELLED")))
    assert [line for line in text if line.startswith(("ATTACH", "STATUS:CANCELLED"))] == []


@given(words)
def test_lines_are_at_most_75_octets_and_are_whole_again_when_unfolded(summary: str) -> None:
    text = written(replace(EVENT, summary=summary))
    for line in text.split(b"\r\n"):
        assert len(line) <= 75
        line.decode()  # no character is split
    assert b"\n" not in text.replace(b"\r\n", b"")
    escaped = summary.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,")
    assert f"SUMMARY:{escaped}" in unfolded(text)


def test_the_same_events_give_the_same_bytes() -> None:
    assert written(EVENT) == written(EVENT)
