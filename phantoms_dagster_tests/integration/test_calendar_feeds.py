"""Calendar feeds: secret addresses that programs read, and that people make and revoke."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from phantoms_dagster.cli.main import app
from phantoms_dagster.desk.attempts import PER_ADDRESS
from phantoms_dagster.store.audit import Actor
from phantoms_dagster.store.booking_changes import BookingChanges
from phantoms_dagster.store.calendar_feeds import CalendarFeeds
from phantoms_dagster_tests.integration.desk_world import DeskWorld, open_desk
from phantoms_dagster_tests.integration.stage_world import CHANNEL, brief

ANN = Actor("ann", "cli")
LATER = (datetime.now(UTC) + timedelta(days=2)).replace(hour=15, minute=30, second=0, microsecond=0)


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path) as opened:
        yield opened


def made(world: DeskWorld, channel: str = "") -> str:
    _, secret = CalendarFeeds(world.world.engine).add(channel, ANN)
    return f"/calendar/{secret}.ics"


def lines(text: bytes) -> list[str]:
    return text.replace(b"\r\n ", b"").decode().split("\r\n")


async def test_a_program_reads_the_calendar_without_logging_in(world: DeskWorld) -> None:
    [key] = world.world.add(1, publish_at=LATER)
    answer = await world.browser().client.get(made(world))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/calendar; charset=utf-8"
    found = lines(answer.content)
    assert f"UID:{key}-youtube@phantoms" in found
    assert f"DTSTART:{LATER:%Y%m%dT%H%M%SZ}" in found
    assert "SUMMARY:Ocean facts 0 (YouTube)" in found
    assert [line for line in found if line.startswith("URL:") and line.endswith(f"/calendar/{key}")]


async def test_an_unchanged_calendar_is_not_sent_again(world: DeskWorld) -> None:
    [key] = world.world.add(1, publish_at=LATER)
    there, client = made(world), world.browser().client
    first = await client.get(there)
    again = await client.get(there, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    weak = await client.get(there, headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
    assert weak.status_code == 304
    BookingChanges(world.world.engine).move(key, LATER + timedelta(hours=1), ANN)
    changed = await client.get(there, headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200
    assert changed.headers["etag"] != first.headers["etag"]


async def test_a_moved_post_is_the_same_event_with_a_higher_sequence_and_a_cancelled_one_says_so(world: DeskWorld) -> None:
    [key] = world.world.add(1, publish_at=LATER)
    changes, there, client = BookingChanges(world.world.engine), made(world), world.browser().client
    changes.move(key, LATER + timedelta(hours=1), ANN)
    changes.move(key, LATER + timedelta(hours=2), ANN)
    moved = lines((await client.get(there)).content)
    assert moved.count(f"UID:{key}-youtube@phantoms") == 1
    assert "SEQUENCE:1" in moved
    changes.cancel(key, ANN, reason="secret reason")
    gone = lines((await client.get(there)).content)
    assert "STATUS:CANCELLED" in gone
    assert "SEQUENCE:2" in gone
    assert "secret reason" not in "\n".join(gone)


async def test_a_feed_of_a_channel_has_its_posts_alone(world: DeskWorld) -> None:
    world.world.catalogue.put_channels([CHANNEL, CHANNEL.model_copy(update={"name": "other", "title": "Other"})])
    world.world.add(1, publish_at=LATER)
    world.world.catalogue.add([brief(9, title="Volcanoes", channel="other", publish_at=LATER)], source="test")
    client = world.browser().client
    of_other = (await client.get(made(world, "other"))).text
    assert "Volcanoes" in of_other
    assert "Ocean facts" not in of_other
    assert "X-WR-CALNAME:Phantoms: other" in of_other
    assert "Ocean facts" in (await client.get(made(world))).text


async def test_a_revoked_or_wrong_address_reads_nothing_and_guessing_is_slowed_down(world: DeskWorld) -> None:
    feeds = CalendarFeeds(world.world.engine)
    feed, secret = feeds.add("", ANN)
    client = world.browser().client
    feeds.revoke(feed.id, ANN)
    assert (await client.get(f"/calendar/{secret}.ics")).status_code == 404
    for number in range(PER_ADDRESS):
        answer = await client.get(f"/calendar/{'a' * 40}{number}.ics")
        assert answer.status_code in (404, 429)
    assert (await client.get(made(world))).status_code == 429


@pytest.mark.parametrize("how", ["removed", "token revoked"])
async def test_the_feeds_of_a_person_or_a_program_that_was_removed_are_revoked(world: DeskWorld, how: str) -> None:
    """A person who had left went on reading the calendar at their own address."""
    feeds, users, boss = CalendarFeeds(world.world.engine), world.desk.users, Actor("boss", "cli")
    if how == "removed":
        world.add_user("rita", "reviewer")
    else:
        users.add_token("rita", "reviewer", "a secret of a program", actor=boss)
    hers, secret = feeds.add("", Actor("rita", "desk"))
    theirs, client = made(world), world.browser().client
    assert (await client.get(f"/calendar/{secret}.ics")).status_code == 200
    (users.remove if how == "removed" else users.revoke_token)("rita", actor=boss)
    assert (await client.get(f"/calendar/{secret}.ics")).status_code == 404
    assert (await client.get(theirs)).status_code == 200
    [row] = world.desk.audit.page(subject="rita")[:1]
    assert row.after == {"calendar feeds revoked": [hers.id]}


async def test_the_secret_is_stored_nowhere(world: DeskWorld) -> None:
    _, secret = CalendarFeeds(world.world.engine).add("", ANN)
    [row] = world.world.rows("SELECT * FROM phantoms.calendar_feeds")
    assert secret not in str(dict(row))
    assert secret not in str([dict(entry) for entry in world.world.rows("SELECT * FROM phantoms.audit_log")])


async def test_people_make_and_revoke_feeds_at_the_desk(world: DeskWorld) -> None:
    world.world.add(1, publish_at=LATER)
    rita, vera = await world.logged_in("rita"), await world.logged_in("vera", "viewer")
    shown = (await rita.post("/calendar-feeds", {"channel": "facts"})).text
    found = re.search(r'value="([^"]+/calendar/[A-Za-z0-9_-]{43}\.ics)"', shown)
    assert found
    path = "/calendar/" + found[1].rpartition("/")[2]
    assert "Ocean facts" in (await world.browser().client.get(path)).text
    listed = (await vera.get("/calendar-feeds")).text
    assert "facts" in listed
    assert path not in listed
    assert "Make a feed" not in listed
    [row] = world.desk.audit.page(subject="calendar feed 1")
    assert (row.who, row.action) == ("rita", "make calendar feed")
    await rita.post("/calendar-feeds/1/revoke", {})
    assert (await world.browser().client.get(path)).status_code == 404
    assert "revoked" in (await vera.get("/calendar-feeds")).text
    assert (await rita.post("/calendar-feeds", {"channel": "nobody"})).status_code == 422


def test_the_command_makes_lists_and_revokes_feeds(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", database_url)
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
    monkeypatch.setenv("PHANTOMS_DESK_URL", "https://desk.example")

    def run(*arguments: str) -> dict[str, Any]:
        result = CliRunner().invoke(app, ["calendar", "feed", *arguments, "--json"])
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    feed = run("add")
    assert re.fullmatch(r"https://desk\.example/calendar/[A-Za-z0-9_-]{43}\.ics", str(feed["url"]))
    [listed] = run("list")["feeds"]
    assert "url" not in listed
    assert listed["revoked_at"] is None
    assert run("revoke", "1")["revoked_at"] is not None
    refused = CliRunner().invoke(app, ["calendar", "feed", "revoke", "77"])
    assert (refused.exit_code, "there is no calendar feed 77" in refused.output) == (2, True)
    wrong = CliRunner().invoke(app, ["calendar", "feed", "add", "--channel", "nobody"])
    assert "there is no channel 'nobody'" in wrong.output
