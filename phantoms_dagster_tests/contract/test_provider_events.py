"""The stand-ins' webhooks as the real services send them, read by our adapters: signed, repeated, late and out of order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from phantoms_dagster.domain.provider_events import Delivery, NotAuthentic, ProviderEvent, digest_of, signed
from phantoms_dagster.domain.publication import Found, RemoteId, Undecided
from phantoms_dagster.platforms.tiktok.posts import TikTokPostReader
from phantoms_dagster.production.publication import publish
from phantoms_dagster.providers.shotstack.events import callback_query
from phantoms_dagster.sandbox.tiktok.app import CLIENT_SECRET
from phantoms_dagster.wiring.provider_events import reader_of
from phantoms_dagster_tests.contract import tiktok_world
from phantoms_dagster_tests.contract.test_shotstack import running


@dataclass(frozen=True)
class Secrets:
    """The secrets of the sandbox's own app."""

    secret: str = CLIENT_SECRET

    def settings(self, *names: str) -> Sequence[str]:
        return [self.secret]

    def token(self, text: str) -> str:
        return signed(text.encode(), self.secret)


@dataclass
class Receiver:
    """A server that reads what a stand-in sends. `events` has each event once, in the order of arrival."""

    url: str = ""
    secrets: Secrets = field(default_factory=Secrets)
    now: float | None = None
    events: list[ProviderEvent] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    deliveries: int = 0

    async def take(self, request: web.Request) -> web.Response:
        self.deliveries += 1
        headers = {name.lower(): value for name, value in request.headers.items()}
        at = datetime.now(UTC) if self.now is None else datetime.fromtimestamp(self.now, UTC)
        delivery = Delivery(headers, dict(request.query), await request.read(), at, request.match_info.get("secret", ""))
        try:
            found = reader_of(request.match_info["service"]).read_events(delivery, self.secrets)
        except NotAuthentic as error:
            self.refused.append(str(error))
            return web.Response(status=401)
        for number, event in enumerate(found):
            if digest_of(delivery, number) not in self.seen:
                self.events.append(event)
            self.seen.add(digest_of(delivery, number))
        return web.Response()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.add_routes([web.post("/{service}", receiver.take), web.post("/{service}/{secret}", receiver.take)])
    async with TestServer(app) as server:
        receiver.url = str(server.make_url("")).rstrip("/")
        yield receiver


@asynccontextmanager
async def posted(folder: Path, **settings: object) -> AsyncIterator[tuple[tiktok_world.World, Receiver, str]]:
    """A post on TikTok whose webhooks are held; its publish_id."""
    async with receiving() as receiver, tiktok_world.a_world(folder) as w:
        w.sandbox.configure({"tiktok.webhook_url": f"{receiver.url}/tiktok", "webhooks.held": True, **settings})
        journal = w.journal()
        await publish(w.publisher(), w.job(), journal)
        yield w, receiver, str(journal.record.handle["publish_id"])


async def test_tiktok_tells_of_a_post_with_its_publish_id(tmp_path: Path) -> None:
    async with posted(tmp_path) as (w, receiver, publish_id):
        assert await w.sandbox.webhooks.release() == 2
        about = {"publish_id": publish_id}
        kinds = ["post.publish.complete", "post.publish.publicly_available"]
        assert receiver.events == [ProviderEvent(kind, handle=about) for kind in kinds]
        assert (w.sandbox.webhooks.statuses, receiver.refused) == ([200, 200], [])


async def test_tiktok_tells_of_an_upload_that_failed(tmp_path: Path) -> None:
    async with receiving() as receiver, tiktok_world.a_world(tmp_path) as w:
        facts = {"tiktok.webhook_url": f"{receiver.url}/tiktok", "webhooks.held": True, "tiktok.fail_reason": "spam_risk"}
        w.sandbox.configure(facts)
        with pytest.raises(Exception, match="spam_risk"):
            await publish(w.publisher(), w.job(), w.journal())
        await w.sandbox.webhooks.release()
        assert [event.kind for event in receiver.events] == ["post.publish.failed"]


async def test_tiktok_tells_that_a_post_is_no_longer_public(tmp_path: Path) -> None:
    async with posted(tmp_path) as (w, receiver, publish_id):
        w.sandbox.advance(60)
        await w.sandbox.webhooks.release()
        number, url = w.posts[0]["remote_id"], f"{w.base_url.removesuffix('/tiktok')}/_sandbox/tiktok/posts"
        assert (await w.client.post(url, json={"id": "1", "do": "hide"})).status_code == 404
        assert (await w.client.post(url, json={"id": number, "do": "show"})).status_code == 400
        assert (await w.client.post(url, json={"id": number, "do": "hide"})).status_code == 200
        assert await w.sandbox.webhooks.release() == 1
        event = receiver.events[-1]
        assert event == ProviderEvent("post.publish.no_longer_publicaly_available", handle={"publish_id": publish_id})
        reader = TikTokPostReader(client=w.client, base_url=w.base_url, tokens=w.tokens)
        assert [found.state for found in await reader.look("ocean_facts", [number])] == ["gone"]


async def test_events_that_come_twice_and_in_reverse_are_known_once_each(tmp_path: Path) -> None:
    async with posted(tmp_path) as (w, receiver, _):
        assert await w.sandbox.webhooks.release(order="reversed", copies=2) == 4
        assert receiver.deliveries == 4
        assert [event.kind for event in receiver.events] == ["post.publish.publicly_available", "post.publish.complete"]


async def test_held_events_are_released_over_http(tmp_path: Path) -> None:
    async with posted(tmp_path) as (w, receiver, _):
        url = f"{w.base_url.removesuffix('/tiktok')}/_sandbox/webhooks"
        assert (await w.client.post(url, json={"order": "shuffled"})).status_code == 400
        assert (await w.client.post(url, json={"order": "reversed", "copies": 2})).json() == {"deliveries": 4}
        assert (await w.client.post(url, json={})).json() == {"deliveries": 0}
        assert (receiver.deliveries, len(receiver.events)) == (4, 2)


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
async def test_events_of_a_service_whose_clock_is_an_hour_off_are_authentic(tmp_path: Path, skew: float) -> None:
    async with posted(tmp_path, **{"tiktok.webhook_skew": skew}) as (w, receiver, _):
        receiver.now = w.sandbox.now()
        await w.sandbox.webhooks.release()
        assert len(receiver.events) == 2


async def test_events_that_another_app_signed_are_refused(tmp_path: Path) -> None:
    async with posted(tmp_path, **{"tiktok.webhook_secret": "of another app"}) as (w, receiver, _):
        await w.sandbox.webhooks.release()
        assert receiver.events == []
        assert set(w.sandbox.webhooks.statuses) == {401}


async def test_an_event_that_is_not_held_is_sent_when_it_happens(tmp_path: Path) -> None:
    async with receiving() as receiver, tiktok_world.a_world(tmp_path) as w:
        w.sandbox.configure({"tiktok.webhook_url": f"{receiver.url}/tiktok", "webhooks.copies": 2})
        await publish(w.publisher(), w.job(), w.journal())
        w.sandbox.advance(60)
        await until(lambda: receiver.deliveries == 4)
        assert len(receiver.events) == 2


async def until(holds: Callable[[], bool]) -> None:

    for _ in range(1_000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come about")


# --- Shotstack -------------------------------------------------------------------------------------------------------


async def test_a_callback_finds_the_render_of_an_order_whose_answer_was_lost(tmp_path: Path) -> None:
    """The render was written off as lost after half an hour, and ordered and paid again."""
    async with receiving() as receiver, running(tmp_path) as w:
        token = receiver.secrets.token
        renderer = w.renderer(
            callback=lambda attempt: f"{receiver.url}/shotstack?{callback_query(attempt, token(attempt))}",
            named=lambda attempt: named(receiver, attempt),
        )
        w.fault("shotstack.render", "drop_after")
        with pytest.raises(Exception, match="shotstack"):
            await renderer.submit(w.job(), w.about_to_bill)
        await until(lambda: len(receiver.events) == 2)
        [order] = w.billed
        assert {event.remote_id for event in receiver.events} == {order["id"]}
        assert await renderer.find(w.job().attempt_id) == Found(RemoteId(order["id"]))


async def named(receiver: Receiver, attempt_id: str) -> Sequence[str]:
    return [event.remote_id for event in receiver.events if event.attempt_id == attempt_id and event.remote_id]


async def test_a_render_of_another_order_is_not_taken_however_it_was_named(tmp_path: Path) -> None:
    async with running(tmp_path) as w:
        told: list[str] = []

        async def claims(attempt_id: str) -> Sequence[str]:
            return told

        renderer = w.renderer(named=claims)
        w.fault("shotstack.render", "latency")
        await renderer.submit(w.job(attempt_id="a1-mine"), w.about_to_bill)
        told += [w.billed[0]["id"], "00000000-0000-4000-8000-000000000000", "../sources/1", "x" * 500]
        assert await renderer.find("a2-other") == Undecided()
        assert await renderer.find("a1-mine") == Found(RemoteId(w.billed[0]["id"]))


async def test_an_order_has_no_callback_without_a_public_address(tmp_path: Path) -> None:
    async with running(tmp_path) as w:
        await w.renderer().submit(w.job(), w.about_to_bill)
        await until(lambda: bool(w.renders))
        assert "callback" not in w.renders[0][0]
        assert not w.sandbox.webhooks.statuses
