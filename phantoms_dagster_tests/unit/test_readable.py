"""Stored JSON is shown as words."""

from __future__ import annotations

import pytest

from phantoms_dagster.domain.readable import readable


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"at": "2026-11-28T19:44:00+00:00", "state": "booked"}, "at 2026-11-28 19:44 UTC, state booked"),
        ({"at": None, "state": "cancelled", "note": ""}, "state cancelled"),
        ({"privacy_level": "SELF_ONLY", "is_aigc": True, "tags": ["a", "b"]}, "privacy level SELF_ONLY, is aigc yes, tags a, b"),
        ("2026-11-28T19:44:00.123456+01:00", "2026-11-28 19:44 UTC+01:00"),
        ("on 2026-11-28", "on 2026-11-28"),
        (None, "none"),
        (3, "3"),
    ],
)
def test_a_stored_value_is_said_in_words(value: object, words: str) -> None:
    assert readable(value) == words
