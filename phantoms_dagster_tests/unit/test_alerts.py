"""Alerts: what is new for each destination, one message for each cause, and text that leads to the next command."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from phantoms_dagster.domain.attention import Attention
from phantoms_dagster.production.alerts import (
    LATE,
    SHOWN_GROUPS,
    AlertDelivery,
    AlertReading,
    BreakerAlert,
    DayFacts,
    DeadLetterAlert,
    Message,
    SentAlerts,
    Undelivered,
    UnsentAlerts,
    alert,
    deliver,
    dump_cursor,
    find_unsent,
    grouped,
    load_cursor,
    read_letters_since,
    summary,
    yesterday,
)
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.alerts import destinations, local_zone

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
NO_PAUSE = timedelta(0)


def letter(number: int, at: datetime = NOW, **changes: object) -> DeadLetterAlert:
    fields = {"key": f"20261122-sea-{number:04x}", "stage": "script", "error_class": "transient", "provider": "openai"}
    return DeadLetterAlert(**{"id": number, "message": f"answered 503 ({number})", "created_at": at, **fields, **changes})  # type: ignore[arg-type]


def breaker(name: str = "shotstack", *opened: datetime, state: str = "open") -> BreakerAlert:
    return BreakerAlert(name, state, tuple((at, "too many failures") for at in opened))


class Ear:
    """A destination."""

    def __init__(self, *, deaf: bool = False) -> None:
        self.heard: list[Message] = []
        self.deaf = deaf

    def __call__(self, message: Message) -> None:
        if self.deaf:
            raise Undelivered("it answered 503")
        self.heard.append(message)


def tell(
    told: dict[str, SentAlerts],
    reading: AlertReading,
    ears: dict[str, Callable[[Message], None]],
    *,
    now: datetime = NOW,
    pause: timedelta = NO_PAUSE,
) -> AlertDelivery:
    """Deliver, with a cursor in between, as the sensor does."""
    delivery = deliver(told, reading, ears, now=now, pause=pause)
    assert load_cursor(dump_cursor(delivery.told)) == delivery.told
    return delivery


# --- what is news


def test_a_destination_that_was_told_nothing_hears_of_every_open_letter_and_of_what_is_open_now() -> None:
    breakers = [breaker("openai", NOW - HOUR, state="closed"), breaker("shotstack", NOW - 2 * HOUR, NOW - HOUR)]
    found = find_unsent([letter(1, NOW - 99 * HOUR), letter(2)], breakers, None)
    assert [n.id for n in found.letters] == [1, 2]
    assert [(b.name, len(b.opened)) for b in found.breakers] == [("shotstack", 1)]


def test_nothing_is_sent_twice_and_news_is_sent_once() -> None:
    ear = Ear()
    first = tell({}, AlertReading(NOW, (letter(1),), (breaker("shotstack", NOW),)), {"a": ear})
    again = tell(dict(first.told), AlertReading(NOW + HOUR, (letter(1),), (breaker("shotstack", NOW),)), {"a": ear}, now=NOW + HOUR)
    assert (len(ear.heard), again.sent) == (1, ())
    more = AlertReading(NOW + HOUR, (letter(1), letter(2, NOW + HOUR)), (breaker("shotstack", NOW, NOW + HOUR),))
    tell(dict(again.told), more, {"a": ear}, now=NOW + HOUR)
    assert ear.heard[1].title == "Phantoms: 1 new dead letter, 1 breaker opened"


def test_a_letter_that_was_committed_late_is_sent_although_younger_ones_were() -> None:
    ear = Ear()
    first = tell({}, AlertReading(NOW, (letter(2, NOW - timedelta(seconds=1)),), ()), {"a": ear})
    since = read_letters_since(first.told, ["a"])
    assert since == NOW - LATE
    late = AlertReading(
        NOW + timedelta(seconds=30), (letter(2, NOW - timedelta(seconds=1)), letter(1, NOW - timedelta(seconds=50))), ()
    )
    assert [m.title for m in tell(dict(first.told), late, {"a": ear}).sent] == ["Phantoms: 1 new dead letter"]
    assert "sea-0001" in ear.heard[1].body
    assert "sea-0002" not in ear.heard[1].body


def test_a_breaker_that_opened_and_closed_between_two_looks_makes_an_alert() -> None:
    ear = Ear()
    first = tell({}, AlertReading(NOW, (), ()), {"a": ear})
    assert (ear.heard, set(first.told)) == ([], {"a"})
    over = AlertReading(NOW + HOUR, (), (breaker("openai", NOW - HOUR, NOW + timedelta(minutes=1), state="closed"),))
    tell(dict(first.told), over, {"a": ear})
    assert "breaker openai opened at 2026-11-22 12:01 UTC: too many failures (now closed)" in ear.heard[0].body


def test_while_redis_is_away_letters_make_alerts_and_breakers_do_afterwards() -> None:
    ear = Ear()
    opened = breaker("openai", NOW + timedelta(minutes=1))
    first = tell({}, AlertReading(NOW, (), (breaker("shotstack", NOW - HOUR, state="closed"),)), {"a": ear})
    away = tell(dict(first.told), AlertReading(NOW + timedelta(seconds=30), (letter(1),), None), {"a": ear})
    assert [m.title for m in away.sent] == ["Phantoms: 1 new dead letter"]
    old = breaker("shotstack", NOW - HOUR, state="closed")
    back = tell(dict(away.told), AlertReading(NOW + HOUR, (letter(1),), (opened, old)), {"a": ear}, now=NOW + HOUR)
    assert [m.title for m in back.sent] == ["Phantoms: 1 breaker opened"]


def test_a_failed_delivery_is_repeated_and_who_has_heard_is_not_told_again() -> None:
    good, bad = Ear(), Ear(deaf=True)
    first = tell({}, AlertReading(NOW, (letter(1),), ()), {"good": good, "bad": bad})
    assert first.failed == {"bad": "it answered 503"}
    assert set(first.told) == {"good"}
    assert read_letters_since(first.told, ["good", "bad"]) is None
    bad.deaf = False
    second = tell(dict(first.told), AlertReading(NOW, (letter(1), letter(2)), ()), {"good": good, "bad": bad})
    assert [m.title for m in good.heard] == ["Phantoms: 1 new dead letter"] * 2
    assert [m.title for m in bad.heard] == ["Phantoms: 2 new dead letters"]
    assert second.failed == {}


def test_between_two_alerts_there_is_a_pause_and_then_everything_is_sent_together() -> None:
    ear, pause = Ear(), timedelta(minutes=5)
    first = tell({}, AlertReading(NOW, (letter(1),), ()), {"a": ear}, pause=pause)
    soon = AlertReading(NOW + timedelta(minutes=1), (letter(1), letter(2, NOW + timedelta(seconds=50))), ())
    waiting = tell(dict(first.told), soon, {"a": ear}, now=soon.at, pause=pause)
    assert (waiting.sent, waiting.until) == ((), NOW + pause)
    later = AlertReading(NOW + pause, (*soon.letters, letter(3, NOW + 4 * timedelta(minutes=1))), ())
    tell(dict(waiting.told), later, {"a": ear}, now=later.at, pause=pause)
    assert [m.title for m in ear.heard] == ["Phantoms: 1 new dead letter", "Phantoms: 2 new dead letters"]


def test_a_destination_that_is_gone_from_the_settings_is_forgotten() -> None:
    first = tell({}, AlertReading(NOW, (letter(1),), ()), {"old": Ear()})
    assert set(tell(dict(first.told), AlertReading(NOW, (), ()), {"new": Ear()}).told) == {"new"}


@pytest.mark.parametrize("cursor", [None, "", "17", "{]", '{"a": {"since": "x"}}'])
def test_a_cursor_of_another_version_is_as_good_as_none(cursor: str | None) -> None:
    assert load_cursor(cursor) == {}


# --- words


def test_letters_are_grouped_by_stage_class_and_provider_the_largest_first() -> None:
    letters = [letter(1, stage="voiceover", provider=None), *(letter(n) for n in range(2, 7)), letter(7, error_class="rejected")]
    assert [(g.stage, g.error_class, g.provider, len(g.keys)) for g in grouped(letters)] == [
        ("script", "transient", "openai", 5),
        ("script", "rejected", "openai", 1),
        ("voiceover", "transient", None, 1),
    ]


def test_one_message_names_counts_examples_and_the_commands_to_run() -> None:
    letters = (*(letter(n, provider="shot stack") for n in range(300)), letter(300, stage="youtube/post", provider=None))
    message = alert(UnsentAlerts(letters, (breaker("openai", NOW, NOW + HOUR),)), web_url="http://127.0.0.1:3000")
    assert message.title == "Phantoms: 301 new dead letters, 1 breaker opened"
    lines = message.body.splitlines()
    assert lines[0] == "300 x script: transient at shot stack"
    assert lines[1] == "  answered 503 (299)"
    assert lines[2] == "  20261122-sea-012b, 20261122-sea-012a, 20261122-sea-0129 and 297 more"
    assert "breaker openai opened 2 times, last at 2026-11-22 13:00 UTC: too many failures (now open)" in lines
    assert "phantoms dead-letters replay --stage script --class transient --provider 'shot stack'" in lines
    assert "phantoms dead-letters replay --stage youtube/post --class transient --provider none" in lines
    assert lines[-3:] == ["phantoms breakers", "", "Dagster: http://127.0.0.1:3000"]


def test_a_message_stays_short_whatever_happened() -> None:
    letters = tuple(letter(n, stage=f"stage{n % 40}", message="x\n\x1b[2J" * 5_000) for n in range(5_000))
    message = alert(UnsentAlerts(letters))
    assert "\x1b" not in message.body
    assert len(message.body) < 6_000
    assert f"... and {5_000 - 125 * SHOWN_GROUPS} in {40 - SHOWN_GROUPS} more groups" in message.body


def test_the_summary_counts_a_day_and_says_what_to_do_next() -> None:
    facts = DayFacts(date(2026, 11, 21), 12, {"tiktok": 3, "youtube": 9}, {"script": 1}, Decimal("4.5678"), 2, 1)
    message = summary(facts)
    assert message.title == "Phantoms 2026-11-21: 12 posts, 1 failure, 4.57 USD"
    assert message.body.splitlines() == [
        "Videos added: 12",
        "Posts published: 12 (youtube 9, tiktok 3)",
        "Stages that failed: 1 (script 1)",
        "Spent: 4.57 USD",
        "Dead letters open now: 2",
        "Posts whose outcome is unknown: 1 (they are read back, never sent again)",
        "",
        "Next:",
        "phantoms dead-letters list",
        "phantoms dead-letters replay --all",
    ]


def test_the_summary_and_an_alert_lead_to_the_pages_of_the_desk() -> None:
    message = summary(DayFacts(date(2026, 11, 21), 0, {}, {}, Decimal(0), 0, 0), desk_url="https://desk.example/")
    assert message.body.splitlines()[-4:] == [
        "",
        "Review: https://desk.example/review",
        "Calendar: https://desk.example/calendar",
        "Dead letters: https://desk.example/dead-letters",
    ]
    told = alert(UnsentAlerts((letter(1),)), web_url="http://127.0.0.1:3000", desk_url="https://desk.example")
    assert told.body.splitlines()[-3:] == ["", "Desk: https://desk.example/dead-letters", "Dagster: http://127.0.0.1:3000"]
    opened = alert(UnsentAlerts((), (breaker("openai", NOW),)), desk_url="https://desk.example")
    assert opened.body.splitlines()[-1] == "Desk: https://desk.example/providers"


def test_a_quiet_day_is_summed_up_too() -> None:
    message = summary(DayFacts(date(2026, 11, 21), 0, {}, {}, Decimal(0), 0, 0))
    assert message.title == "Phantoms 2026-11-21: 0 posts, 0 failures, 0.00 USD"
    assert "Next:" not in message.body


def test_yesterday_is_that_of_the_zone_one_lives_in() -> None:
    zone = datetime(2026, 11, 22, 0, 30, tzinfo=UTC).astimezone(tz=datetime.now().astimezone().tzinfo)
    assert yesterday(zone) == zone.date() - timedelta(days=1)


# --- settings


@pytest.fixture
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALERT_URLS", "ALERT_MINUTES"):
        monkeypatch.delenv(f"PHANTOMS_{name}", raising=False)


@pytest.mark.usefixtures("_no_settings")
@pytest.mark.parametrize(
    ("given", "urls"),
    [
        ("", []),
        ("json://a/x", ["json://a/x"]),
        ("json://a/x, mailto://u:p@b?to=c,d ,discord://e/f\n", ["json://a/x", "mailto://u:p@b?to=c,d", "discord://e/f"]),
        ('["json://a/x", "slack://b"]', ["json://a/x", "slack://b"]),
        ("[]", []),
    ],
)
def test_alert_urls_are_given_with_commas_or_as_json(monkeypatch: pytest.MonkeyPatch, given: str, urls: list[str]) -> None:
    monkeypatch.setenv("PHANTOMS_ALERT_URLS", given)
    assert [url.get_secret_value() for url in Settings().alerts.urls] == urls


@pytest.mark.usefixtures("_no_settings")
def test_alert_urls_are_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(alerts={"urls": [SecretStr("discord://1/5ecr3tW0rd")]})
    assert (
        "5ecr3t"
        not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()} {list(destinations(settings))}"
    )
    again = Settings(**settings.model_dump())
    assert again.alerts.urls == settings.alerts.urls
    monkeypatch.setenv("PHANTOMS_ALERT_URLS", '["discord://1/5ecr3tW0rd')
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert caught.value.errors(include_input=False, include_context=False)[0]["loc"] == ("alerts", "urls")
    assert "5ecr3t" not in caught.value.errors(include_input=False)[0]["msg"]


# --- where we are


def test_the_local_zone_is_the_environments_or_the_machines_or_utc(tmp_path: Path) -> None:
    link = tmp_path / "localtime"
    link.symlink_to("/usr/share/zoneinfo/Europe/Berlin")
    assert local_zone({"TZ": "America/New_York"}, link) == "America/New_York"
    assert local_zone({"TZ": ":Asia/Tokyo"}, link) == "Asia/Tokyo"
    assert local_zone({"TZ": "CET-1CEST,M3.5.0"}, link) == "Europe/Berlin"
    assert local_zone({"TZ": "../etc"}, tmp_path / "missing") == "UTC"
    assert local_zone({}, link) == "Europe/Berlin"


def waiting(name: str = "account:tiktok:main", **changes: object) -> Attention:
    fields = {"what": f"{name} waits", "next_step": "phantoms doctor", "since": NOW}
    return Attention(**{"id": name, **fields, **changes})  # type: ignore[arg-type]


def test_what_waits_for_a_person_makes_one_alert_while_it_waits_and_another_when_it_comes_back() -> None:
    ear = Ear()
    told = tell({}, AlertReading(NOW, (), (), (waiting(),)), {"a": ear})
    assert ear.heard[-1].title == "Phantoms: 1 thing waiting for a person"
    assert "account:tiktok:main waits\n\nNext:\nphantoms doctor" in ear.heard[-1].body
    told = tell(dict(told.told), AlertReading(NOW + HOUR, (), (), (waiting(),)), {"a": ear}, now=NOW + HOUR)
    told = tell(dict(told.told), AlertReading(NOW + 2 * HOUR, (), (), ()), {"a": ear}, now=NOW + 2 * HOUR)
    assert len(ear.heard) == 1
    tell(dict(told.told), AlertReading(NOW + 3 * HOUR, (), (), (waiting(),)), {"a": ear}, now=NOW + 3 * HOUR)
    assert len(ear.heard) == 2


def test_what_has_not_waited_long_enough_makes_an_alert_when_it_has() -> None:
    ear = Ear()
    told = tell({}, AlertReading(NOW, (), (), (waiting("review", alert=False),)), {"a": ear})
    assert ear.heard == []
    tell(dict(told.told), AlertReading(NOW + HOUR, (), (), (waiting("review"),)), {"a": ear}, now=NOW + HOUR)
    assert len(ear.heard) == 1


def test_a_cursor_from_before_there_was_anything_to_wait_for_is_understood() -> None:
    assert (
        load_cursor('{"a": {"since": "2026-11-22T12:00:00Z", "letters": [], "breakers": {}, "sent_at": null}}')["a"].waits
        == frozenset()
    )


def test_the_summary_repeats_what_waits() -> None:
    facts = DayFacts(date(2026, 11, 22), 0, {}, {}, Decimal(0), 0, 0, (waiting(),))
    assert "Waiting for a person:\n- account:tiktok:main waits (phantoms doctor)" in summary(facts).body
