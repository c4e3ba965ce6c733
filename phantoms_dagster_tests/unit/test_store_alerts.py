"""Alerts about a store that is away: one when it has been away for the pause, one when it is back."""

from __future__ import annotations

from datetime import timedelta

from phantoms_dagster.production.alerts import Message, Undelivered
from phantoms_dagster.production.store_alerts import StoreAlerts


class Box:
    """A destination."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.closed = False

    def __call__(self, message: Message) -> None:
        if self.closed:
            raise Undelivered("it could not be reached")
        self.titles.append(message.title.removeprefix("Phantoms: PostgreSQL is "))


def watched(**more: bool) -> StoreAlerts:
    return StoreAlerts("PostgreSQL", pause=timedelta(minutes=5), **more)


def test_one_alert_tells_that_it_is_away_and_one_that_it_is_back() -> None:
    box, alerts = Box(), watched()
    for now, trouble in ((0, None), (10, "no"), (309, "no"), (310, "no"), (400, "no"), (500, None), (600, None)):
        assert alerts.look(trouble, {"box": box}, now=now) == {}
    assert box.titles == ["away", "back"]


def test_an_absence_shorter_than_the_pause_makes_no_alert_and_the_next_one_starts_at_zero() -> None:
    box, alerts = Box(), watched()
    for now, trouble in ((0, "no"), (299, "no"), (300, None), (310, "no"), (600, "no")):
        alerts.look(trouble, {"box": box}, now=now)
    assert box.titles == []


def test_a_destination_that_could_not_be_reached_gets_the_alert_later_and_the_others_only_once() -> None:
    box, late, alerts = Box(), Box(), watched()
    both = {"box": box, "late": late}
    late.closed = True
    assert alerts.look("no", both, now=0) == {}
    assert alerts.look("no", both, now=300) == {"late": "it could not be reached"}
    late.closed = False
    alerts.look("no", both, now=400)
    box.closed = True
    assert alerts.look(None, both, now=500) == {"box": "it could not be reached"}
    box.closed = False
    alerts.look(None, both, now=510)
    assert box.titles == late.titles == ["away", "back"]


def test_an_absence_that_another_process_reports_makes_only_the_alert_that_it_is_over() -> None:
    box, alerts = Box(), watched(announce_outage=False)
    for now, trouble in ((0, "no"), (300, "no"), (400, None)):
        alerts.look(trouble, {"box": box}, now=now)
    assert box.titles == ["back"]
