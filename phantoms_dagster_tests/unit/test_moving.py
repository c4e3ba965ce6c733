"""The warnings that a person gets before a video gets another time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from phantoms_dagster.domain.models import Channel, Platform, PostingHours
from phantoms_dagster.domain.posting_slots import DayLimit
from phantoms_dagster.production.rescheduling import Neighbour, warnings

NOW = datetime(2026, 10, 20, 12, tzinfo=UTC)
CHANNEL = Channel(
    name="facts",
    title="Facts",
    brand_voice="calm",
    accounts={Platform("youtube"): "main", Platform("tiktok"): "main"},
    timezone="Europe/Berlin",
    posting_hours=PostingHours(start=9, end=21),
)
BOTH = (Platform("youtube"), Platform("tiktok"))


def neighbour(at: datetime, platform: Platform = Platform("youtube"), account: str = "main") -> Neighbour:
    return Neighbour("other", "The other one", platform, account, at)


def asked(at: datetime, *neighbours: Neighbour, **limits: list[DayLimit]) -> list[str]:
    given = {Platform(name): found for name, found in limits.items()}
    return warnings(CHANNEL, BOTH, at, now=NOW, neighbours=neighbours, limits=given)


def test_a_free_hour_of_a_day_to_come_has_nothing_odd() -> None:
    assert asked(datetime(2026, 10, 21, 10, tzinfo=UTC)) == []


def test_a_time_that_is_past_is_a_warning() -> None:
    [told] = asked(NOW - timedelta(hours=1))
    assert told.startswith("That time is past")


def test_a_time_outside_the_posting_hours_is_a_warning_with_the_hour_of_the_post() -> None:
    # The clocks are set back in the night before: nine o'clock is an hour later in UTC.
    [told] = asked(datetime(2026, 10, 24, 23, tzinfo=UTC))
    assert told == "The channel posts from 9:00 to 21:00: it goes out on Sun 25 Oct at 09:00."


def test_a_slot_is_taken_when_the_same_account_posts_within_half_an_hour() -> None:
    at = datetime(2026, 10, 21, 10, tzinfo=UTC)
    assert asked(at, neighbour(at + timedelta(minutes=29))) == [
        "On YouTube that is 29 minutes from “The other one”, which goes out at 12:29. The channel wants 30 between two posts."
    ]
    assert asked(at, neighbour(at + timedelta(minutes=30))) == []
    assert asked(at, neighbour(at, account="second")) == []
    assert len(asked(at, neighbour(at), neighbour(at, Platform("tiktok")))) == 2


def test_the_slot_is_that_of_the_hour_at_which_it_really_goes_out() -> None:
    opens = datetime(2026, 10, 22, 7, tzinfo=UTC)
    told = asked(datetime(2026, 10, 21, 22, tzinfo=UTC), neighbour(opens))
    assert any("minutes from “The other one”" in one for one in told)


def test_a_daily_quota_is_that_of_the_providers_own_day() -> None:
    limits = [DayLimit(2, "America/Los_Angeles")]
    at = datetime(2026, 10, 22, 8, tzinfo=UTC)  # 01:00 of the 22nd in Los Angeles, 10:00 in Berlin
    before = [neighbour(datetime(2026, 10, 22, 5, tzinfo=UTC)), neighbour(datetime(2026, 10, 22, 6, tzinfo=UTC))]
    assert asked(at, *before, youtube=limits) == []  # the 21st there
    after = [neighbour(at + timedelta(hours=3)), neighbour(at + timedelta(hours=5), account="second")]
    [told] = asked(at, *after, youtube=limits)
    assert told.startswith("YouTube's quota is used up on Thu 22 Oct (America/Los_Angeles): 2 of 2 posts.")


def test_a_quota_of_any_24_hours_is_each_accounts_own() -> None:
    limits = [DayLimit(2)]
    at = datetime(2026, 10, 22, 10, tzinfo=UTC)
    posts = [neighbour(at - timedelta(hours=h), Platform("tiktok")) for h in (3, 23)]
    [told] = asked(at, *posts, tiktok=limits)
    assert told.startswith("TikTok's quota is used up in 24 hours of this account: 2 of 2 posts.")
    assert asked(at, posts[0], neighbour(at - timedelta(hours=25), Platform("tiktok")), tiktok=limits) == []
    assert asked(at, posts[0], neighbour(at - timedelta(hours=23), Platform("tiktok"), "second"), tiktok=limits) == []
