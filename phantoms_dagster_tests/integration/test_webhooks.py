"""Webhooks: written in the transaction of their event, delivered at least once, and verified by the standard's own library."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from standardwebhooks.webhooks import WebhookVerificationError

from phantoms_dagster.domain.claims import AttemptOutcome
from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.stages import StageState, stage
from phantoms_dagster.domain.webhooks import EVENTS, RetrySchedule
from phantoms_dagster.providers.webhooks import WebhookSender
from phantoms_dagster.resilience.breakers.breaker import CallOutcome
from phantoms_dagster.resilience.wire import tls
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.audit import Actor, AuditLog
from phantoms_dagster.store.engine import engine
from phantoms_dagster.store.outbox import Outbox
from phantoms_dagster.store.webhooks import Webhooks, new_secret
from phantoms_dagster.wiring import Services
from phantoms_dagster.wiring.watching import watching
from phantoms_dagster.wiring.webhooks import delivering
from phantoms_dagster_tests.integration.stage_world import World, deciding, finished, open_world
from phantoms_dagster_tests.webhook_receiver import Receiver, receiving

OPERATOR = Actor("ann", "cli")
MADE = ("script", "voiceover", "rendered_video")
QUICK = RetrySchedule(waits=(0.1,) * 10, timeout=5.0, lease=20.0, first_pause=0.05, longest_pause=0.2)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as opened:
        yield opened


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    return Settings(
        paths={"home": tmp_path},
        database={"url": SecretStr(database_url)},
        redis={"url": SecretStr(redis_url)},
        desk={"url": "https://desk.example"},
    )


@pytest.fixture
def hooks(world: World) -> Webhooks:
    return Webhooks(world.engine, "loopback")


@asynccontextmanager
async def deliverer(settings: Settings, schedule: RetrySchedule = QUICK) -> AsyncIterator[None]:
    assert settings.database.url is not None
    database = engine(settings.database.url.get_secret_value(), pool_size=3)
    try:
        async with delivering(settings, database, schedule=schedule, look_seconds=0.05):
            yield
    finally:
        database.dispose()


async def until(receiver: Receiver, found: Callable[[], bool]) -> None:
    assert await asyncio.to_thread(receiver.wait, found), receiver.got


def delivered(hooks: Webhooks, count: int) -> Callable[[], bool]:
    return lambda: len(hooks.deliveries(state="delivered", limit=1000)) >= count


def pending(world: World) -> int:
    return int(world.rows("SELECT count(*) AS n FROM phantoms.webhook_deliveries WHERE state = 'pending'")[0]["n"])


async def fail(world: World, key: str, message: str = "it broke") -> None:
    store, claim = await world.claimed("script", key)
    outcome = AttemptOutcome(
        StageState.FAILED, counts=True, provider="openai", error_class="permanent", code="bad", message=message
    )
    assert await store.finish(claim, outcome)


async def test_the_three_events_of_a_video_are_signed_and_lead_to_the_desk(
    world: World, hooks: Webhooks, settings: Settings, receiver: Receiver
) -> None:
    number, secret = hooks.add(receiver.url, [], OPERATOR)
    posted, failed = world.add(2)
    await world.carry([posted], *MADE)
    store, claim = await world.claimed("approval", posted, context=deciding())
    assert await store.finish(claim, finished("approval"))
    await world.carry([posted], "youtube/variant", "youtube/post")
    await fail(world, failed, "Bearer ya29.5ecr3t was refused")
    async with deliverer(settings):
        await until(receiver, delivered(hooks, 3))
    told = {got.verified(secret)["type"]: got.verified(secret) for got in receiver.got}
    assert sorted(told) == ["approval.wanted", "video.failed", "video.posted"]
    assert told["approval.wanted"]["data"] == {
        "video": {"key": posted, "title": "Ocean facts 0", "channel": "facts"},
        "revision": 1,
        "platforms": ["youtube"],
        "publish_at": None,
        "links": {"video": f"https://desk.example/videos/{posted}", "review": f"https://desk.example/review/{posted}"},
    }
    post = told["video.posted"]["data"]["post"]
    assert (post["platform"], post["account"], post["url"]) == ("youtube", "youtube-account", "https://example.org/42")
    assert post["sandbox"] is False
    failure = told["video.failed"]["data"]["failure"]
    assert (failure["stage"], failure["provider"], failure["class"], failure["code"]) == ("script", "openai", "permanent", "bad")
    assert "5ecr3t" not in str(told)
    assert told["video.failed"]["data"]["links"]["issue"].startswith("https://desk.example/dead-letters/")
    assert all(got.id.startswith("msg_") and got.verified(secret)["version"] == 1 for got in receiver.got)
    assert len({got.id for got in receiver.got}) == 3
    assert [one.endpoint_id for one in hooks.deliveries()] == [number] * 3


async def test_without_an_endpoint_for_it_no_event_is_written(world: World, hooks: Webhooks, receiver: Receiver) -> None:
    await world.carry(world.add(1), *MADE)
    hooks.add(receiver.url, ["video.failed"], OPERATOR)
    await world.carry(world.add(1), *MADE)
    assert world.rows("SELECT * FROM phantoms.webhook_events") == []


async def test_a_transaction_that_is_rolled_back_tells_nothing(world: World, hooks: Webhooks, receiver: Receiver) -> None:
    hooks.add(receiver.url, [], OPERATOR)
    [key] = world.add(1)
    letter = """INSERT INTO phantoms.dead_letters (video_id, stage, revision, error_class, message, attempts)
        SELECT id, 'script', 1, 'permanent', 'no', '[]' FROM phantoms.videos WHERE key = :key"""
    with world.engine.connect() as connection:
        transaction = connection.begin()
        connection.execute(text(letter), {"key": key})
        assert connection.execute(text("SELECT count(*) FROM phantoms.webhook_events")).scalar_one() == 1
        transaction.rollback()
    assert world.rows("SELECT * FROM phantoms.webhook_events") == []
    assert world.rows("SELECT * FROM phantoms.webhook_deliveries") == []
    world.write(letter, key=key)
    assert [row["type"] for row in world.rows("SELECT type FROM phantoms.webhook_events")] == ["video.failed"]


async def test_an_approval_is_wanted_once_for_each_revision_of_what_there_is_to_approve(
    world: World, hooks: Webhooks, receiver: Receiver
) -> None:
    hooks.add(receiver.url, ["approval.wanted"], OPERATOR)
    keys = world.add(1)
    await world.carry(keys, *MADE)
    await world.store().regenerate(stage("rendered_video"), keys)
    await world.carry(keys, "rendered_video")
    found = world.rows("SELECT data FROM phantoms.webhook_events ORDER BY id")
    assert [row["data"]["revision"] for row in found] == [1, 2]


async def test_a_receiver_that_fails_twice_gets_the_same_message_again_until_it_takes_it(
    world: World, hooks: Webhooks, settings: Settings, receiver: Receiver
) -> None:
    _, secret = hooks.add(receiver.url, [], OPERATOR)
    receiver.answers = [500, 503]
    await world.carry(world.add(1), *MADE)
    async with deliverer(settings):
        await until(receiver, delivered(hooks, 1))
    assert len(receiver.got) == 3
    assert len({got.id for got in receiver.got}) == 1
    assert len({got.body for got in receiver.got}) == 1
    assert all(got.verified(secret)["type"] == "approval.wanted" for got in receiver.got)
    one, attempts = hooks.delivery(hooks.deliveries()[0].id)
    assert (one.state, one.tries, one.reason) == ("delivered", 3, "")
    assert [(a.status, a.error) for a in reversed(attempts)] == [(500, "answered 500"), (503, "answered 503"), (204, "")]
    [found] = hooks.endpoints()
    assert (found.failures, found.failing_since) == (0, None)


def start(settings: Settings) -> subprocess.Popen[bytes]:
    assert settings.database.url is not None
    environment = {
        **os.environ,
        "PHANTOMS_HOME": str(settings.paths.home),
        "PHANTOMS_DATABASE_URL": settings.database.url.get_secret_value(),
        "PHANTOMS_REDIS_URL": settings.redis.url.get_secret_value() if settings.redis.url else "",
        "PHANTOMS_DESK_URL": "https://desk.example",
    }
    command = [sys.executable, "-m", "phantoms_dagster.cli.main", "webhooks", "deliver"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


async def test_a_deliverer_killed_in_mid_delivery_loses_nothing(
    world: World, hooks: Webhooks, settings: Settings, receiver: Receiver
) -> None:
    """The receiver had the message when the process was killed: it gets it again, with the same id."""
    _, secret = hooks.add(receiver.url, [], OPERATOR)
    await world.carry(world.add(1), *MADE)
    receiver.hang = 30.0
    process = start(settings)
    try:
        await until(receiver, lambda: len(receiver.got) == 1)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert pending(world) == 1
    receiver.hang = 0.0
    world.write("UPDATE phantoms.webhook_deliveries SET next_at = clock_timestamp()")  # as if the lease had run out
    async with deliverer(settings):
        await until(receiver, delivered(hooks, 1))
    assert len(receiver.got) == 2
    assert receiver.got[0].id == receiver.got[1].id
    assert receiver.got[1].verified(secret)["type"] == "approval.wanted"
    assert hooks.deliveries()[0].tries == 2


async def test_a_claim_that_was_given_up_ends_nothing(world: World, hooks: Webhooks, receiver: Receiver) -> None:
    from phantoms_dagster.store.outbox import DeliveryResult  # noqa: PLC0415

    number, _ = hooks.add(receiver.url, [], OPERATOR)
    await world.carry(world.add(1), *MADE)
    outbox = Outbox(world.engine, QUICK)
    [first] = outbox.claim({number: 4})
    assert outbox.claim({number: 4}) == []  # another deliverer has it
    world.write("UPDATE phantoms.webhook_deliveries SET next_at = clock_timestamp()")
    [second] = outbox.claim({number: 4})
    outbox.end(first, DeliveryResult(datetime.now(UTC), 0.1, 204), spread=0)
    assert hooks.deliveries()[0].state == "pending"
    outbox.end(second, DeliveryResult(datetime.now(UTC), 0.1, 204), spread=0)
    assert hooks.deliveries()[0].state == "delivered"
    assert "s3cret-path" not in repr(first)
    assert "whsec_" not in repr(first)


async def test_many_deliverers_send_each_message_once(
    world: World, hooks: Webhooks, settings: Settings, receiver: Receiver
) -> None:
    hooks.add(receiver.url, [], OPERATOR)
    await world.carry(world.add(40), *MADE)
    async with deliverer(settings), deliverer(settings), deliverer(settings):
        await until(receiver, delivered(hooks, 40))
    assert len(receiver.got) == 40
    assert len({got.id for got in receiver.got}) == 40


async def test_a_slow_receiver_delays_neither_the_pipeline_nor_another_receiver(
    world: World, hooks: Webhooks, settings: Settings, receiver: Receiver
) -> None:
    """A flood of events to a receiver that never answers: each outcome is still one commit, and the other receiver gets all."""
    with receiving() as slow:
        slow.hang = 60.0
        dead, _ = hooks.add(slow.url, [], OPERATOR)
        hooks.add(receiver.url, [], OPERATOR)
        async with deliverer(settings):
            await world.carry(world.add(60), *MADE)
            assert world.states("rendered_video") == ["done"] * 60
            await until(receiver, delivered(hooks, 60))
            assert {one.endpoint_id for one in hooks.deliveries(state="pending", limit=100)} == {dead}
            assert len(slow.got) <= 8
            slow.hang = 0.0


async def test_a_receiver_that_is_gone_is_disabled_and_people_are_told_once(
    world: World, hooks: Webhooks, settings: Settings, receiver: Receiver
) -> None:
    number, _ = hooks.add(receiver.url, [], OPERATOR)
    receiver.answers = [410] * 3  # several may be under way when the first is answered
    await world.carry(world.add(3), *MADE)
    async with deliverer(settings):
        await until(receiver, lambda: hooks.endpoints()[0].state == "disabled")
    receiver.answers = []
    [found] = hooks.endpoints()
    assert found.reason == "answered 410: it wants no more events"
    assert pending(world) == 0
    services = Services(settings)
    [item] = [one for one in services.waits_for_people() if one.id == f"notice:webhook:{number}"]
    services.close()
    assert "was disabled: answered 410" in item.what
    assert "s3cret-path" not in item.what
    assert (item.alert, item.next_step) == (True, f"phantoms webhooks enable {number}")
    # What happens while it is disabled is kept, and can be sent later.
    await world.carry(world.add(1), *MADE)
    one = hooks.deliveries(limit=1)[0]
    assert (one.state, one.reason) == ("failed", "the endpoint was disabled")
    with pytest.raises(InvalidInput, match="enable it first"):
        hooks.resend(one.id, OPERATOR)
    hooks.enable(number, OPERATOR)
    assert services.attention() is not None
    assert world.rows("SELECT * FROM phantoms.notices") == []
    before = len(receiver.got)
    assert hooks.resend_failed(datetime.now(UTC) - timedelta(hours=1), OPERATOR, endpoint=number) == 4
    async with deliverer(settings):
        await until(receiver, delivered(hooks, 4))
    assert len(receiver.got) == before + 4


async def test_a_receiver_that_fails_for_days_is_disabled(
    world: World, hooks: Webhooks, settings: Settings, receiver: Receiver
) -> None:
    hooks.add(receiver.url, [], OPERATOR)
    receiver.answers = [500] * 100
    await world.carry(world.add(1), *MADE)
    async with deliverer(settings):
        await until(receiver, lambda: hooks.endpoints()[0].failures >= 1)
        world.write("UPDATE phantoms.webhook_endpoints SET failing_since = failing_since - interval '4 days'")
        await until(receiver, lambda: hooks.endpoints()[0].state == "disabled")
    assert "every delivery has failed since" in hooks.endpoints()[0].reason
    assert len(world.rows("SELECT * FROM phantoms.notices")) == 1


async def test_a_delivery_whose_tries_are_used_up_has_failed_and_can_be_sent_again(
    world: World, hooks: Webhooks, settings: Settings, receiver: Receiver
) -> None:
    hooks.add(receiver.url, [], OPERATOR)
    receiver.answers = [500, 500, 500]
    await world.carry(world.add(1), *MADE)
    two = RetrySchedule(waits=(0.1, 0.1), first_pause=0.05, longest_pause=0.1)
    async with deliverer(settings, two):
        await until(receiver, lambda: bool(hooks.deliveries(state="failed")))
        [one] = hooks.deliveries()
        assert one.reason == "given up after 3 tries: answered 500"
        hooks.resend(one.id, OPERATOR)
        await until(receiver, delivered(hooks, 1))
    assert len({got.id for got in receiver.got}) == 1
    assert len(hooks.delivery(one.id)[1]) == 4
    deeds = [(row.action, row.subject) for row in AuditLog(world.engine).page()]
    assert deeds[:2] == [("resend", f"webhook delivery {one.id}"), ("add", "webhook endpoint 1")]


async def test_after_a_rotation_both_secrets_verify_and_later_only_the_new_one(
    world: World, hooks: Webhooks, settings: Settings, receiver: Receiver
) -> None:
    number, old = hooks.add(receiver.url, [], OPERATOR)
    new = hooks.rotate(number, OPERATOR)
    await world.carry(world.add(1), *MADE)
    async with deliverer(settings):
        await until(receiver, delivered(hooks, 1))
        assert receiver.got[0].headers["webhook-signature"].count("v1,") == 2
        for secret in (old, new):
            assert receiver.got[0].verified(secret)["type"] == "approval.wanted"
        world.write("UPDATE phantoms.webhook_endpoints SET old_secret_until = clock_timestamp()")
        await world.carry(world.add(1), *MADE)
        await until(receiver, delivered(hooks, 2))
    assert receiver.got[1].verified(new)["type"] == "approval.wanted"
    with pytest.raises(WebhookVerificationError):
        receiver.got[1].verified(old)
    newest = hooks.rotate(number, OPERATOR, keep_hours=0)
    assert world.rows("SELECT secret, old_secret FROM phantoms.webhook_endpoints")[0] == {"secret": newest, "old_secret": None}


async def test_redirects_are_not_followed_and_a_large_answer_is_left_alone(
    world: World, hooks: Webhooks, settings: Settings, receiver: Receiver
) -> None:
    hooks.add(receiver.url, [], OPERATOR)
    receiver.answers = [302, 200]  # a 204 must not have a body
    receiver.headers = {"Location": receiver.url.replace("hooks", "elsewhere")}
    receiver.body = b"x" * 3_000_000
    await world.carry(world.add(1), *MADE)
    async with deliverer(settings):
        await until(receiver, delivered(hooks, 1))
    assert {got.path for got in receiver.got} == {"/hooks/s3cret-path"}
    attempts = hooks.delivery(hooks.deliveries()[0].id)[1]
    assert attempts[-1].error == "answered 302: redirects are not followed; enter the address to which it redirects"
    assert attempts[0].status == 200


async def test_deliveries_wait_while_postgresql_is_away_and_go_on_by_themselves(
    world: World, hooks: Webhooks, settings: Settings, receiver: Receiver
) -> None:
    hooks.add(receiver.url, [], OPERATOR)
    name = world.rows("SELECT current_database() AS name")[0]["name"]
    async with deliverer(settings):
        with world.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name AND pid <> pg_backend_pid()"),
                {"name": name},
            )
        await world.carry(world.add(2), *MADE)
        await until(receiver, delivered(hooks, 2))
    assert len({got.id for got in receiver.got}) == 2


async def test_what_came_of_a_delivery_is_written_when_postgresql_is_back(
    world: World, hooks: Webhooks, settings: Settings, receiver: Receiver
) -> None:
    """The receiver had it, and the connections were cut before that was written: it is not sent again."""
    hooks.add(receiver.url, [], OPERATOR)
    receiver.hang = 30.0
    await world.carry(world.add(1), *MADE)
    async with deliverer(settings):
        await until(receiver, lambda: len(receiver.got) == 1)
        with world.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid()"
                )
            )
        receiver.hang = 0.0
        await until(receiver, delivered(hooks, 1))
    assert len(receiver.got) == 1


async def test_a_breaker_that_opened_makes_one_event_with_its_reason_even_with_two_readers(
    world: World, hooks: Webhooks, settings: Settings, receiver: Receiver
) -> None:
    async with watching(settings) as watcher:
        await watcher.breakers.trip("openai", why="before anybody wanted to know")
        await watcher.breakers.reset("openai", why="fine")
    _, secret = hooks.add(receiver.url, ["provider.down"], OPERATOR)
    async with watching(settings) as watcher:
        for _ in range(settings.breakers.minimum_calls):
            leave = await watcher.breakers.admit("youtube:main")
            await watcher.breakers.settle(leave, CallOutcome.FAILED)
    async with deliverer(settings), deliverer(settings):
        await until(receiver, delivered(hooks, 1))
    [got] = receiver.got
    told = got.verified(secret)
    assert told["type"] == "provider.down"
    data: dict[str, Any] = told["data"]
    assert (data["provider"], data["account"], data["breaker"], data["sandbox"]) == ("youtube", "main", "youtube:main", False)
    assert data["reason"] == "too many failures"
    assert data["links"] == {"provider": "https://desk.example/providers/youtube"}


async def test_old_events_are_forgotten_with_their_deliveries(world: World, hooks: Webhooks, receiver: Receiver) -> None:
    hooks.add(receiver.url, [], OPERATOR)
    await world.carry(world.add(2), *MADE)
    world.write("UPDATE phantoms.webhook_events SET at = at - interval '31 days' WHERE id = 1")
    assert Outbox(world.engine, QUICK).forget() == 1
    assert len(hooks.deliveries()) == 1


def test_an_endpoint_that_is_removed_is_forgotten_with_its_secret(world: World, hooks: Webhooks, receiver: Receiver) -> None:
    number, _ = hooks.add(receiver.url, [], OPERATOR)
    hooks.remove(number, OPERATOR)
    assert hooks.endpoints() == []
    assert [row["secret"] for row in world.rows("SELECT secret FROM phantoms.webhook_endpoints")] == [""]
    for change in (hooks.remove, hooks.enable):
        with pytest.raises(NotFound, match="there is no webhook endpoint"):
            change(number, OPERATOR)
    log = str([(row.before, row.after) for row in AuditLog(world.engine).page()])
    assert "s3cret-path" not in log
    assert "whsec_" not in log


async def test_a_name_that_leads_into_a_private_network_is_refused_when_it_has_been_resolved(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is wrong with the name; where it leads is known only at the moment of the connection."""
    loop = asyncio.get_running_loop()
    leads_to = {"inside.example.org": "10.0.0.5", "meta.example.org": "169.254.169.254", "here.example.org": "127.0.0.1"}

    async def resolved(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (leads_to[host], port))]

    monkeypatch.setattr(loop, "getaddrinfo", resolved)
    sender = WebhookSender("public", timeout=5, tls=tls())
    try:
        port = receiver.url.rsplit(":", 1)[1].split("/")[0]
        said = [await sender.send(f"https://{name}:{port}/s3cret-path", "msg_1", "{}", (new_secret(),)) for name in leads_to]
    finally:
        await sender.aclose()
    assert ["private network" in said[0].error, "link-local" in said[1].error, "this machine itself" in said[2].error] == [True] * 3
    assert "s3cret-path" not in str(said)
    assert receiver.got == []


def test_only_events_that_there_are_can_be_asked_for(hooks: Webhooks, receiver: Receiver) -> None:
    with pytest.raises(InvalidInput, match=r"there is no event 'video.liked'; the events are approval.wanted"):
        hooks.add(receiver.url, ["video.liked"], OPERATOR)
    hooks.add(receiver.url, ["video.posted", "approval.wanted", "video.posted"], OPERATOR)
    assert hooks.endpoints()[0].events == ("approval.wanted", "video.posted")
    hooks.add(receiver.url, [], OPERATOR)
    assert hooks.endpoints()[1].events == EVENTS
