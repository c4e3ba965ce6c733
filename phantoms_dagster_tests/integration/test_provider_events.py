"""Events of TikTok, Instagram and Shotstack at the desk: verified, and stored once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from phantoms_dagster.desk import provider_events as door
from phantoms_dagster.registry.platforms import SPECS
from phantoms_dagster.wiring.provider_events import SENDERS, event_url
from phantoms_dagster_tests.integration.desk_world import DeskWorld, open_desk
from phantoms_dagster_tests.integration.provider_event_world import (
    ADDRESS_SECRET,
    PUBLIC,
    SETTINGS,
    VERIFY,
    by_meta,
    by_tiktok,
    deferred_post,
    deliver,
    stored,
    tiktok_event,
    upload_post_event,
)


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path, **SETTINGS) as opened:
        yield opened


# --- what is let in --------------------------------------------------------------------------------------------------


async def test_an_event_makes_a_waiting_post_due_and_changes_nothing_else(world: DeskWorld) -> None:
    key = await deferred_post(world)
    before, post = world.world.row(key, "tiktok/post"), world.world.rows("SELECT * FROM phantoms.posts")
    assert world.world.due("tiktok/post") == []
    body = tiktok_event()
    assert (await deliver(world, "tiktok", body, by_tiktok(body))).status_code == 200
    [followed] = world.desk.provider_events.follow()
    assert (followed.provider, followed.kind, followed.woken) == ("tiktok", "post.publish.complete", 1)
    assert world.world.due("tiktok/post") == [key]
    after = world.world.row(key, "tiktok/post")
    assert {name for name in after if after[name] != before[name]} == {"retry_at", "updated_at"}
    assert world.world.rows("SELECT * FROM phantoms.posts") == post


async def test_a_delivery_that_comes_again_is_answered_and_does_nothing(world: DeskWorld) -> None:
    key = await deferred_post(world)
    body = tiktok_event()
    first = await deliver(world, "tiktok", body, by_tiktok(body))
    world.desk.provider_events.follow()
    due_at = world.world.row(key, "tiktok/post")["retry_at"]
    again = await deliver(world, "tiktok", body, by_tiktok(body, at=time.time() + 5))
    assert (first.status_code, again.status_code, len(stored(world))) == (200, 200, 1)
    assert world.desk.provider_events.follow() == []
    assert world.world.row(key, "tiktok/post")["retry_at"] == due_at


async def test_an_event_of_upload_post_makes_the_open_posts_of_its_profile_due_and_is_believed_nothing(world: DeskWorld) -> None:
    key, other = await deferred_post(world), await deferred_post(world, account="b", publish_id="p2")
    world.world.write("INSERT INTO phantoms.accounts (platform, name, subject) VALUES ('tiktok', 'a', 'uploadpost:a')")
    world.world.write("UPDATE phantoms.stages SET updated_at = now() - interval '2 minutes' WHERE stage = 'tiktok/post'")
    posts = world.world.rows("SELECT * FROM phantoms.posts")
    for _ in range(2):
        answer = await deliver(world, f"uploadpost/{ADDRESS_SECRET}", upload_post_event(), {})
        assert answer.status_code == 200
    [followed] = world.desk.provider_events.follow()
    assert (followed.provider, followed.kind, followed.woken) == ("tiktok", "upload_completed", 1)
    assert world.world.due("tiktok/post") == [key] != [other]
    assert world.world.rows("SELECT * FROM phantoms.posts") == posts
    assert ADDRESS_SECRET not in str(world.world.rows("SELECT * FROM phantoms.provider_events"))


@pytest.mark.parametrize(
    "body",
    [
        upload_post_event("social_account_connected"),
        upload_post_event(profile=""),
        upload_post_event(platform=None),
        upload_post_event(platform="t" * 501),
        upload_post_event(profile="a\x00"),
    ],
)
async def test_an_event_of_upload_post_that_names_no_posts_is_accepted_and_forgotten(world: DeskWorld, body: bytes) -> None:
    assert (await deliver(world, f"uploadpost/{ADDRESS_SECRET}", body, {})).status_code == 200
    assert stored(world) == []


@pytest.mark.parametrize("copies", [8])
async def test_of_deliveries_that_come_at_once_one_is_stored(world: DeskWorld, copies: int) -> None:
    body = tiktok_event()
    answers = await asyncio.gather(*(deliver(world, "tiktok", body, by_tiktok(body)) for _ in range(copies)))
    assert ({answer.status_code for answer in answers}, len(stored(world))) == ({200}, 1)


@pytest.mark.parametrize(
    ("service", "headers"),
    [
        ("tiktok", {}),
        ("tiktok", {"TikTok-Signature": "t=,s="}),
        ("tiktok", {"TikTok-Signature": "nonsense"}),
        ("tiktok", dict(by_tiktok(tiktok_event(), secret="another"))),
        ("tiktok", dict(by_tiktok(tiktok_event("post.publish.failed")))),
        ("tiktok", dict(by_tiktok(tiktok_event(), at=time.time() - 80 * 3600))),
        ("tiktok", dict(by_tiktok(tiktok_event(), at=time.time() + 2 * 3600))),
        ("instagram", {}),
        ("instagram", dict(by_meta(tiktok_event(), secret="another"))),
        ("instagram", {"X-Hub-Signature-256": "sha1=abc"}),
        ("shotstack", {}),
        ("uploadpost", {}),
        ("uploadpost/another", {}),
        ("tiktok/end-of-the-address", {}),
    ],
)
async def test_a_delivery_with_a_wrong_signature_is_refused_and_not_stored(
    world: DeskWorld, service: str, headers: Mapping[str, str]
) -> None:
    key = await deferred_post(world)
    answer = await deliver(world, service, tiktok_event(), headers)
    assert (answer.status_code, stored(world)) == (401, [])
    world.desk.provider_events.follow()
    assert world.world.row(key, "tiktok/post")["state"] == "deferred"
    assert world.world.due("tiktok/post") == []


@pytest.mark.parametrize("hours", [-1, 1, -72])
async def test_a_signature_counts_when_a_clock_is_off_or_the_delivery_is_repeated_for_days(world: DeskWorld, hours: int) -> None:
    body = tiktok_event()
    answer = await deliver(world, "tiktok", body, by_tiktok(body, at=time.time() + hours * 3600))
    assert (answer.status_code, len(stored(world))) == (200, 1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 60_000,
        tiktok_event("tiktok.ping"),
        tiktok_event(content="{}"),
        tiktok_event(content="no JSON"),
        tiktok_event(content="[" * 60_000),
        tiktok_event(publish_id="v\x00"),
        tiktok_event(publish_id="\ud800"),
        tiktok_event(publish_id="v" * 501),
        tiktok_event("post.publish.\x00"),
    ],
)
async def test_a_signed_delivery_about_something_else_is_accepted_and_forgotten(world: DeskWorld, body: bytes) -> None:
    upload_post = f"uploadpost/{ADDRESS_SECRET}"
    for service, headers in (("tiktok", by_tiktok(body)), ("instagram", by_meta(body)), (upload_post, {})):
        assert (await deliver(world, service, body, headers)).status_code == 200
    assert stored(world) == []


async def test_without_a_secret_no_signature_is_right(database_url: str, redis_url: str, tmp_path: Path) -> None:
    async with open_desk(database_url, redis_url, tmp_path, provider_events_url=PUBLIC) as world:
        body = tiktok_event()
        assert (await deliver(world, "tiktok", body, by_tiktok(body, secret=""))).status_code == 401
        assert (await deliver(world, "instagram", body, by_meta(body, secret=""))).status_code == 401


async def test_without_a_public_address_nothing_is_accepted(database_url: str, redis_url: str, tmp_path: Path) -> None:
    closed = {name: value for name, value in SETTINGS.items() if name != "provider_events_url"}
    async with open_desk(database_url, redis_url, tmp_path, **closed) as world:
        browser, body = world.browser(), tiktok_event()
        for service in ("tiktok", "instagram", "shotstack", "youtube"):
            assert (await browser.client.post(f"/provider-events/{service}", content=body)).status_code == 404
        assert event_url(world.desk.settings, "tiktok") is None


async def test_a_service_that_sends_no_events_has_no_address(world: DeskWorld) -> None:
    assert (await deliver(world, "youtube", b"{}", {})).status_code == 404
    assert (await deliver(world, "nobody", b"{}", {})).status_code == 404


async def test_a_large_delivery_is_refused_before_it_is_read_whole(world: DeskWorld) -> None:
    body = b"x" * (door.MOST_BYTES + 1)
    assert (await deliver(world, "tiktok", body, by_tiktok(body))).status_code == 413
    assert stored(world) == []


async def test_one_who_guesses_signatures_is_made_to_wait(world: DeskWorld) -> None:
    codes = [(await deliver(world, "tiktok", tiktok_event(), {})).status_code for _ in range(35)]
    assert (codes[0], codes[-1]) == (401, 429)
    assert world.desk.attempts.guess_wait_seconds("203.0.113.7") == 0  # guest links are another matter
    body = tiktok_event()
    assert (await deliver(world, "tiktok", body, by_tiktok(body))).status_code == 200  # of our own app, from the same address


async def test_deliveries_that_are_not_authentic_do_not_use_up_what_a_service_may_deliver(
    world: DeskWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door.DeliveryLimit, "admits", lambda self, provider: False)
    body = tiktok_event()
    assert (await deliver(world, "tiktok", body, {})).status_code == 401
    assert (await deliver(world, "tiktok", body, by_tiktok(body))).status_code == 429


def test_each_service_may_deliver_only_so_often_in_a_minute() -> None:
    limit = door.DeliveryLimit(most=3)
    assert [limit.admits("tiktok") for _ in range(4)] == [True, True, True, False]
    assert limit.admits("instagram")


# --- Meta ------------------------------------------------------------------------------------------------------------


async def test_meta_gets_its_challenge_back_only_with_the_verify_token(world: DeskWorld) -> None:
    browser = world.browser(host="desk.example.org")
    asked = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": VERIFY}
    answer = await browser.client.get("/provider-events/instagram", params=asked)
    assert (answer.status_code, answer.text) == (200, "1158201444")
    for changed in ({"hub.verify_token": "guess"}, {"hub.mode": "unsubscribe"}, {"hub.challenge": "<script>"}):
        assert (await browser.client.get("/provider-events/instagram", params=asked | changed)).status_code == 403
    assert (await browser.client.get("/provider-events/tiktok", params=asked)).status_code == 405


async def test_an_event_of_an_instagram_account_makes_its_open_posts_due_and_no_others(world: DeskWorld) -> None:
    mine, other = await deferred_post(world, "instagram", account="mine"), await deferred_post(world, "instagram", account="other")
    world.world.write(
        """INSERT INTO phantoms.accounts (platform, name, subject) VALUES ('instagram', 'mine', '1789'), ('instagram', 'other', '8')
            ON CONFLICT (platform, name, gateway) DO UPDATE SET subject = excluded.subject"""
    )
    for number, due in enumerate(([], [mine])):  # not within the first minute: comments may come every second
        body = json.dumps({"object": "instagram", "entry": [{"id": "1789", "time": number, "changes": []}]}).encode()
        assert (await deliver(world, "instagram", body, by_meta(body))).status_code == 200
        world.desk.provider_events.follow()
        assert world.world.due("instagram/post") == due
        world.world.write("UPDATE phantoms.stages SET updated_at = now() - interval '2 minutes'")
        world.world.write("DELETE FROM phantoms.provider_events")  # its next event is of another minute
    assert world.world.row(other, "instagram/post")["state"] == "deferred"


def test_every_sender_of_events_is_tested_here() -> None:
    assert set(SENDERS) == {"tiktok", "instagram", "shotstack", "uploadpost"}
    assert {name for name, spec in SPECS.items() if spec.events} == {"tiktok", "instagram"}
