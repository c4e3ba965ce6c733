"""What an event of TikTok, Instagram or Shotstack makes due. It is only a reason to look, and nothing that it says is believed.

The stand-ins send real requests to a desk that serves HTTP.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import TextClause, text

from phantoms_dagster.domain.claims import AttemptOutcome
from phantoms_dagster.domain.errors import Unknown
from phantoms_dagster.domain.provider_events import Delivery, ProviderEvent
from phantoms_dagster.domain.publication import Found, RemoteId, Undecided
from phantoms_dagster.domain.stages import StageState
from phantoms_dagster.production.publication import publish
from phantoms_dagster.providers.shotstack.events import callback_query
from phantoms_dagster.registry.providers import RENDERERS
from phantoms_dagster.settings import Settings
from phantoms_dagster.store import provider_events as events
from phantoms_dagster.store.provider_events import KEPT_DAYS, NamedRenders
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster.wiring.endpoints import Endpoints
from phantoms_dagster.wiring.provider_events import SettingsSecrets, callback_for
from phantoms_dagster.wiring.providers import Providers
from phantoms_dagster_tests.contract import tiktok_world
from phantoms_dagster_tests.contract.test_shotstack import running
from phantoms_dagster_tests.integration.desk_process import open_process, until
from phantoms_dagster_tests.integration.desk_world import DeskWorld, open_desk
from phantoms_dagster_tests.integration.provider_event_world import (
    PUBLIC,
    PUBLISH_ID,
    SECRET,
    SETTINGS,
    by_meta,
    by_tiktok,
    deferred_post,
    deliver,
    stored,
    tiktok_event,
)
from phantoms_dagster_tests.integration.test_statement_plans import plan, reads


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path, **SETTINGS) as opened:
        yield opened


# --- what an event makes due -----------------------------------------------------------------------------------------


async def test_events_of_an_account_are_one_a_minute_and_hold_no_other_back(
    world: DeskWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PENDING", text(events.PENDING.text.replace("LIMIT 500", "LIMIT 1")))
    await deferred_post(world)
    for number in range(3):
        body = json.dumps({"object": "instagram", "entry": [{"id": "17", "time": number}, {"id": "18"}]}).encode()
        assert (await deliver(world, "instagram", body, by_meta(body))).status_code == 200
    assert [row["subject"] for row in stored(world)] in (["17", "18"], ["17", "18", "17", "18"])  # the minute may end
    body = tiktok_event()
    await deliver(world, "tiktok", body, by_tiktok(body))
    assert [(one.provider, one.woken) for one in world.desk.provider_events.follow()] == [("tiktok", 1)]


async def test_an_event_of_an_account_does_not_shorten_the_wait_that_the_platform_asked_for(world: DeskWorld) -> None:
    key = await deferred_post(world, "instagram", account="mine")
    world.world.write("INSERT INTO phantoms.accounts (platform, name, subject) VALUES ('instagram', 'mine', '17')")
    body = json.dumps({"object": "instagram", "entry": [{"id": "17"}]}).encode()
    for error, due in (("throttled", []), ("unknown", [key])):
        world.world.write(
            """UPDATE phantoms.stages SET error_class = :error, updated_at = now() - interval '2 minutes'
            WHERE stage = 'instagram/post'""",
            error=error,
        )
        await deliver(world, "instagram", body, by_meta(body))
        world.desk.provider_events.follow()
        assert world.world.due("instagram/post") == due
        world.world.write("DELETE FROM phantoms.provider_events")


async def test_an_event_waits_while_a_run_holds_the_post(world: DeskWorld) -> None:
    """The run may have looked a moment before the event, and may defer the post for an hour now."""
    key = await deferred_post(world)
    world.world.write("UPDATE phantoms.stages SET retry_at = now() WHERE state = 'deferred'")
    store, claim = await world.world.claimed("tiktok/post", key)
    body = tiktok_event()
    await deliver(world, "tiktok", body, by_tiktok(body))
    assert world.desk.provider_events.follow() == []
    later = datetime.now(UTC) + timedelta(hours=1)
    assert await store.finish(claim, AttemptOutcome(StageState.DEFERRED, retry_at=later, counts=False))
    assert [event.woken for event in world.desk.provider_events.follow()] == [1]
    assert world.world.due("tiktok/post") == [key]


async def test_an_event_about_an_unknown_post_is_dropped(world: DeskWorld) -> None:
    body = tiktok_event(publish_id="v_pub_file~of-another-program")
    await deliver(world, "tiktok", body, by_tiktok(body))
    assert [event.woken for event in world.desk.provider_events.follow()] == [0]
    assert world.desk.provider_events.follow() == []


async def test_an_event_brings_the_lookup_of_a_late_public_id_forward(world: DeskWorld) -> None:
    await deferred_post(world)
    world.world.write_post(
        """UPDATE phantoms.posts SET state = 'confirmed', remote_id = :publish_id, url = 'u', published_at = now() - interval '3 d',
            handle = handle || '{"privacy": "PUBLIC_TO_EVERYONE"}'""",
        publish_id=PUBLISH_ID,
    )
    world.world.write("INSERT INTO phantoms.late_ids (post_id, given_up) SELECT id, true FROM phantoms.posts")
    body = tiktok_event("post.publish.publicly_available")
    await deliver(world, "tiktok", body, by_tiktok(body))
    world.desk.provider_events.follow()
    [late] = world.world.rows("SELECT ask_at <= clock_timestamp() AS due, given_up FROM phantoms.late_ids")
    assert dict(late) == {"due": True, "given_up": False}


async def test_an_event_brings_the_next_reading_of_a_published_post_forward(world: DeskWorld) -> None:
    """TikTok says that a post is not public any more."""
    await deferred_post(world)
    world.world.write_post("UPDATE phantoms.posts SET state = 'confirmed', remote_id = '74', url = 'u', published_at = now()")
    world.world.write("INSERT INTO phantoms.post_reads (post_id, due_at) SELECT id, now() + interval '1 day' FROM phantoms.posts")
    body = tiktok_event("post.publish.no_longer_publicaly_available")
    await deliver(world, "tiktok", body, by_tiktok(body))
    world.desk.provider_events.follow()
    assert [row["due"] for row in world.world.rows("SELECT due_at <= clock_timestamp() AS due FROM phantoms.post_reads")] == [True]


async def test_old_events_are_deleted(world: DeskWorld) -> None:
    for number in range(2):
        body = tiktok_event(publish_id=f"p{number}")
        await deliver(world, "tiktok", body, by_tiktok(body))
    old = "UPDATE phantoms.provider_events SET received_at = now() - make_interval(days => :days) WHERE id % 2 = 0"
    world.world.write(old, days=KEPT_DAYS + 1)
    assert (world.desk.provider_events.forget(), len(stored(world))) == (1, 1)
    assert world.desk.provider_events.forget() == 0


# --- Shotstack -------------------------------------------------------------------------------------------------------


async def lost_render(world: DeskWorld) -> tuple[str, str]:
    """A render whose order got no answer, deferred for half an hour; its video and our id of the order."""
    [key] = world.world.add()
    world.world.write("UPDATE phantoms.videos SET place = id")
    await world.world.carry([key], "script", "voiceover")
    store, claim = await world.world.claimed("rendered_video", key)
    attempt = await store.attempt(claim)
    world.world.write_render(
        """INSERT INTO phantoms.renders (video_id, revision, state, attempt_id, attempted_at)
            SELECT id, 1, 'unknown', :attempt, now() FROM phantoms.videos WHERE key = :key""",
        key=key,
        attempt=attempt.id,
    )
    later = datetime.now(UTC) + timedelta(minutes=30)
    assert await store.finish(claim, AttemptOutcome(StageState.DEFERRED, retry_at=later, counts=False))
    return key, attempt.id


def callback(kind: str, render_id: str = "6f1b3d6e-0000-4000-8000-000000000001") -> bytes:
    named = {"edit": {"id": render_id, "action": "render"}, "serve": {"id": "asset", "render": render_id, "action": "copy"}}
    return json.dumps({"type": kind, "owner": "o", "status": "done", **named[kind]}).encode()


async def test_a_callback_names_the_render_of_a_lost_order_and_makes_it_due(world: DeskWorld) -> None:
    key, attempt_id = await lost_render(world)
    query = f"?{callback_query(attempt_id, SettingsSecrets(world.desk.settings, 'shotstack').token(attempt_id))}"
    for kind in ("edit", "serve", "edit"):
        assert (await deliver(world, "shotstack", callback(kind), {}, query)).status_code == 200
    assert len(stored(world)) == 2
    assert sum(event.woken for event in world.desk.provider_events.follow()) == 1
    assert world.world.due("rendered_video") == [key]
    render = world.world.rows("SELECT state, render_id FROM phantoms.renders")[0]
    assert (render["state"], render["render_id"]) == ("unknown", None)
    assert await NamedRenders(world.world.async_engine).of("shotstack", attempt_id) == ["6f1b3d6e-0000-4000-8000-000000000001"]
    assert await NamedRenders(world.world.async_engine).of("shotstack", "a999-other") == []


async def test_the_token_of_one_order_does_not_open_another(world: DeskWorld) -> None:
    _, attempt_id = await lost_render(world)
    token = SettingsSecrets(world.desk.settings, "shotstack").token("a999-other")
    query = f"?{callback_query(attempt_id, token)}"
    assert (await deliver(world, "shotstack", callback("edit"), {}, query)).status_code == 401
    assert stored(world) == []


OF_POST = {"provider": "tiktok", "handle": '{"publish_id": "p7"}', "subject": None}
OF_RENDER = {"stage": "rendered_video", "attempt_id": "a7-x"}
STATEMENTS: dict[str, tuple[TextClause, dict[str, Any]]] = {
    "what waits": (events.PENDING, {}),
    "posts that a run holds": (events._POSTS_HELD, {"stage": "tiktok/post", **OF_POST}),
    "posts to wake": (events._WAKE_POSTS, {"stage": "tiktok/post", **OF_POST}),
    "results to read": (events._READ_AGAIN, OF_POST),
    "ids that come late": (events._ASK_LATE_ID, {**OF_POST, "public_id": "^[0-9]+$", "late": "[{}]"}),
    "a render that a run holds": (events._RENDER_HELD, OF_RENDER),
    "a render to wake": (events._WAKE_RENDER, OF_RENDER),
    "renders that were named": (events._NAMED, {"provider": "shotstack", "attempt_id": "a7-x"}),
    "events to forget": (events.FORGET, {"days": 30}),
}


@pytest.fixture
def filled(world: DeskWorld) -> DeskWorld:
    """Many finished posts and renders, and few that wait."""
    for statement in (
        """INSERT INTO phantoms.videos (key, channel, title, brief, platforms, source, fingerprint)
            SELECT 'v' || n, 'facts', 't', '{}', '{tiktok}', 'test', 'f' || n FROM generate_series(1, 20000) AS n""",
        """INSERT INTO phantoms.stages (video_id, stage, state, retry_at)
            SELECT v.id, s, CASE WHEN v.id % 500 = 0 THEN 'deferred' ELSE 'done' END, now() + interval '1 hour'
            FROM phantoms.videos v, unnest(ARRAY['rendered_video', 'tiktok/post']) AS s""",
        """INSERT INTO phantoms.attempts (video_id, stage, revision, generation, state)
            SELECT id, 'rendered_video', 1, 1, 'done' FROM phantoms.videos""",
        """INSERT INTO phantoms.renders (video_id, revision, state, attempt_id, render_id)
            SELECT id, 1, 'done', 'a' || id || '-x', 'r' || id FROM phantoms.videos""",
        """INSERT INTO phantoms.posts (video_id, platform, account, state, marker, handle, remote_id, url, video_sha256,
                caption_sha256, published_at)
            SELECT id, 'tiktok', 'a', 'confirmed', key, jsonb_build_object('publish_id', 'p' || id), id::text, 'u', '', '', now()
            FROM phantoms.videos""",
        "INSERT INTO phantoms.post_reads (post_id, due_at) SELECT id, now() + interval '1 day' FROM phantoms.posts",
        """INSERT INTO phantoms.provider_events (provider, digest, kind, attempt_id, remote_id, followed_at)
            SELECT 'shotstack', n::text, 'edit', 'a' || n || '-x', 'r', now() FROM generate_series(1, 20000) AS n""",
    ):
        world.world.write(statement)
    with world.world.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))
    return world


async def test_what_an_event_names_is_found_by_an_index(filled: DeskWorld) -> None:
    for name, (statement, values) in STATEMENTS.items():
        found = set(reads(await plan(filled.world, statement, values)))
        assert {table for table, kind in found if kind == "Seq Scan" and table != "accounts"} == set(), name


# --- the whole way: a stand-in, a desk in a process of its own, PostgreSQL


async def test_a_running_desk_makes_a_post_due_that_tiktok_tells_of(
    world: DeskWorld, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    variables = {"PHANTOMS_PROVIDER_EVENTS_URL": "http://127.0.0.1", "PHANTOMS_TIKTOK_CLIENT_SECRET": SECRET}
    async with open_process(tmp_path, database_url, redis_url, **variables) as desk, tiktok_world.a_world(tmp_path) as tiktok:
        tiktok.sandbox.configure({"tiktok.webhook_url": f"{desk.url}/provider-events/tiktok", "webhooks.held": True})
        journal = tiktok.journal()
        await publish(tiktok.publisher(), tiktok.job(), journal)
        key = await deferred_post(world, publish_id=str(journal.record.handle["publish_id"]))
        assert await tiktok.sandbox.webhooks.release(copies=2) == 4
        assert tiktok.sandbox.webhooks.statuses == [200] * 4
        await until(lambda: world.world.due("tiktok/post") == [key], "the post is due")
        assert len(stored(world)) == 2


async def test_a_render_whose_order_got_no_answer_is_found_by_its_callback(
    world: DeskWorld, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """It was written off after half an hour, and ordered and paid again."""
    key, attempt_id = await lost_render(world)
    variables = {"PHANTOMS_PROVIDER_EVENTS_URL": "http://127.0.0.1", "PHANTOMS_PROVIDER_EVENTS_SECRET": "s" * 40}
    async with open_process(tmp_path, database_url, redis_url, **variables) as desk, running(tmp_path) as shotstack:
        settings = world.desk.settings.changed({"provider_events": {"url": desk.url}})
        named = partial(NamedRenders(world.world.async_engine).of, "shotstack")
        renderer = shotstack.renderer(callback=callback_for(settings, "shotstack"), named=named)
        shotstack.fault("shotstack.render", "drop_after")
        with pytest.raises(Unknown):
            await renderer.submit(shotstack.job(attempt_id=attempt_id), shotstack.about_to_bill)
        assert await renderer.find(attempt_id) == Undecided()
        await until(lambda: world.world.due("rendered_video") == [key], "the render is due")
        [order] = shotstack.billed
        assert await renderer.find(attempt_id) == Found(RemoteId(order["id"]))


async def test_the_renderer_of_a_run_gets_the_address_and_asks_the_table(world: DeskWorld, tmp_path: Path) -> None:
    async with running(tmp_path) as shotstack:
        settings = Settings(
            paths={"home": tmp_path},
            provider_events={"url": PUBLIC, "secret": "s" * 40},
            sandbox={"url": shotstack.url},
            renderer={"choice": "shotstack"},
        )
        nothing: Any = None
        named = NamedRenders(world.world.async_engine).of
        clients = {"shotstack": shotstack.client}
        renderer = Providers(settings, Endpoints(settings), clients, nothing, SystemClock(), named=named).make(RENDERERS)
        answer = await renderer.submit(shotstack.job(attempt_id="a1-x"), shotstack.about_to_bill)
        [(edit, _)] = await until(lambda: shotstack.renders, "the render")
        query = callback_query("a1-x", SettingsSecrets(settings, "shotstack").token("a1-x"))
        assert edit["callback"] == f"{PUBLIC}/provider-events/shotstack?{query}"
        assert await renderer.find("a1-x") == Undecided()
        delivery = Delivery({}, {}, b"callback", datetime.now(UTC))
        world.desk.provider_events.take("shotstack", delivery, [ProviderEvent("edit", attempt_id="a1-x", remote_id=answer.id)])
        assert await renderer.find("a1-x") == Found(answer)
