"""Times while TZ names an unknown zone: the system uses UTC under the wrong name, and we say UTC."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from phantoms_dagster.cli.times import exact, local, soon, unknown_zone

AT = datetime(2026, 7, 1, 10, 40, 7, tzinfo=UTC)


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("zone", ["Nowhere", "Europe/Berlinn", "nonsense/here"], indirect=True)
def test_times_in_an_unknown_zone_are_called_what_they_are(zone: str) -> None:
    assert unknown_zone() == zone == os.environ["TZ"]
    assert (local(AT), exact(AT), soon(AT, AT)) == ("2026-07-01 10:40 UTC", "2026-07-01 10:40:07 UTC", "10:40 UTC")


@pytest.mark.parametrize(
    ("zone", "said"),
    [
        ("Europe/Berlin", "2026-07-01 12:40 CEST"),
        (":Europe/Berlin", "2026-07-01 12:40 CEST"),
        ("XYZ-3", "2026-07-01 13:40 XYZ"),
        ("<-03>3", "2026-07-01 07:40 UTC-03"),
        ("UTC", "2026-07-01 10:40 UTC"),
    ],
    indirect=["zone"],
)
def test_a_zone_that_the_system_knows_keeps_its_name(zone: str, said: str) -> None:
    assert unknown_zone() is None
    assert local(AT) == said
