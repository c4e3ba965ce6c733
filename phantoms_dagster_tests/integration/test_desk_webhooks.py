"""Webhooks at the desk and in its API: who may see and change what, what was delivered, and sending it again."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from phantoms_dagster.domain.webhooks import RetrySchedule
from phantoms_dagster.store import outbox, webhooks
from phantoms_dagster.store.engine import engine
from phantoms_dagster.store.outbox import DeliveryResult, Outbox
from phantoms_dagster_tests.integration.desk_world import TESTER, DeskWorld, open_desk
from phantoms_dagster_tests.integration.test_desk_statement_plans import scans

URL = "https://hooks.example.org/T0/s3cret-path"
TOKENS = {role: {"Authorization": f"Bearer phantoms_{role}"} for role in ("viewer", "operator")}


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path, desk_url="https://desk.example") as opened:
        yield opened


def told(world: DeskWorld, error: str) -> int:
    """Try what is due, with that outcome; how many."""
    out = Outbox(world.world.engine, RetrySchedule(waits=()))
    claimed = out.claim({1: 100})
    for one in claimed:
        out.end(one, DeliveryResult(datetime.now(UTC), 0.2, None if error else 204, error), spread=0)
    return len(claimed)


async def test_an_operator_adds_an_endpoint_and_sees_its_secret_once(world: DeskWorld) -> None:
    ann = await world.logged_in("ann", "operator")
    assert "There are no endpoints yet" in (await ann.get("/webhooks")).text
    answer = await ann.post("/webhooks/add", {"url": URL, "note": "the newsroom", "event": ["approval.wanted", "video.posted"]})
    found = re.search(r"whsec_[A-Za-z0-9+/=]{44}", answer.text)
    assert answer.status_code == 200
    assert found
    assert answer.headers["cache-control"] == "no-store"
    page = (await ann.get("/webhooks")).text
    assert URL in page
    assert "approval.wanted, video.posted" in page
    rotated = re.search(r"whsec_[A-Za-z0-9+/=]{44}", (await ann.post("/webhooks/1/rotate")).text)
    assert rotated
    assert rotated[0] != found[0]
    for path in ("/webhooks", "/audit", "/webhooks?endpoint=1"):
        assert "whsec_" not in (await ann.get(path)).text
    assert "s3cret-path" not in (await ann.get("/audit")).text
    assert (await ann.post("/webhooks/1/remove")).status_code == 303
    assert URL not in (await ann.get("/webhooks")).text


async def test_what_is_wrong_with_an_address_is_said_and_nothing_is_added(world: DeskWorld) -> None:
    ann = await world.logged_in("ann", "operator")
    await ann.get("/webhooks")
    for url, said in (
        ("http://hooks.example.org/", "use https"),
        ("https://10.0.0.1/", "PHANTOMS_WEBHOOK_TARGETS=private allows that"),
        ("https://169.254.169.254/", "webhooks are never sent there"),
        ("", "should look like"),
    ):
        answer = await ann.post("/webhooks/add", {"url": url, "event": "video.posted"})
        assert (answer.status_code, said in answer.text) == (422, True), url
    assert (await ann.post("/webhooks/add", {"url": URL})).status_code == 422
    assert world.world.rows("SELECT * FROM phantoms.webhook_endpoints") == []


async def test_a_viewer_sees_deliveries_but_no_path_of_an_address_and_changes_nothing(world: DeskWorld) -> None:
    webhooks.Webhooks(world.world.engine, "loopback").add(URL, [], TESTER)
    [key] = await world.waiting()
    assert told(world, "answered 500") == 1
    kim = await world.logged_in("kim", "viewer")
    page = (await kim.get("/webhooks")).text
    assert "https://hooks.example.org/..." in page
    assert "s3cret-path" not in page
    assert "given up after 1 tries: answered 500" in page
    assert "/webhooks/add" not in page
    detail = (await kim.get("/webhooks/deliveries/1")).text
    assert f"https://desk.example/review/{key}" in detail
    assert "Send again" not in detail
    for path in ("/webhooks/add", "/webhooks/1/remove", "/webhooks/1/rotate", "/webhooks/deliveries/1/resend", "/webhooks/resend"):
        assert (await kim.post(path)).status_code == 403
    assert (await kim.get("/webhooks/deliveries/99")).status_code == 404


async def test_deliveries_are_found_by_state_event_and_endpoint_page_by_page(world: DeskWorld) -> None:
    store = webhooks.Webhooks(world.world.engine, "loopback")
    store.add(URL, [], TESTER)
    store.add(URL, ["approval.wanted"], TESTER)
    await world.waiting(30)
    told(world, "")
    kim = await world.logged_in("kim", "viewer")

    async def listed(query: str) -> int:
        return len(re.findall(r"/webhooks/deliveries/\d+", (await kim.get(f"/webhooks?{query}")).text))

    assert await listed("") == 50
    assert await listed("before=11") == 10
    assert await listed("state=delivered") == 30
    assert await listed("state=pending&endpoint=2") == 30
    assert await listed("state=pending&endpoint=1") == 0
    assert await listed("event=video.failed") == 0
    assert (await kim.get("/webhooks?state=odd")).status_code == 422
    assert (await kim.get("/webhooks?event=odd")).status_code == 422


async def test_what_failed_is_sent_again_one_by_one_and_all_at_once(world: DeskWorld) -> None:
    webhooks.Webhooks(world.world.engine, "loopback").add(URL, [], TESTER)
    await world.waiting(3)
    assert told(world, "cannot be reached") == 3
    ann = await world.logged_in("ann", "operator")
    await ann.get("/webhooks")
    assert (await ann.post("/webhooks/deliveries/1/resend")).headers["location"] == "/webhooks/deliveries/1"
    assert told(world, "") == 1
    assert (await ann.post("/webhooks/resend", {"hours": "24"})).headers["location"] == "/webhooks?state=pending"
    assert told(world, "") == 2
    states = [row["state"] for row in world.world.rows("SELECT state FROM phantoms.webhook_deliveries")]
    assert states == ["delivered"] * 3
    assert "Nothing failed" in (await ann.get((await ann.post("/webhooks/resend", {"hours": "1"})).headers["location"])).text
    assert (await ann.post("/webhooks/resend", {"hours": "7"})).status_code == 422


async def test_the_api_does_what_the_pages_do(world: DeskWorld) -> None:
    for role in TOKENS:
        world.desk.users.add_token(role, role, f"phantoms_{role}", actor=TESTER)  # type: ignore[arg-type]
    client = world.browser().client

    async def call(method: str, path: str, body: dict[str, Any] | None = None, role: str = "operator") -> Any:
        answer = await client.request(method, f"/api/v1{path}", json=body, headers=TOKENS[role])
        return answer.status_code, answer.json()

    status, made = await call("POST", "/webhooks", {"url": URL, "events": ["approval.wanted"]})
    assert (status, made["id"], made["secret"][:6]) == (201, 1, "whsec_")
    assert (await call("POST", "/webhooks", {"url": "http://a.example/"}))[0] == 422
    assert (await call("POST", "/webhooks", {"url": URL, "events": ["video.liked"]}))[0] == 422
    assert (await call("POST", "/webhooks", {"url": URL}, "viewer"))[0] == 403
    assert (await call("GET", "/webhooks", role="viewer"))[1]["endpoints"][0]["url"] is None
    assert (await call("GET", "/webhooks"))[1]["endpoints"][0]["url"] == URL
    await world.waiting(3)
    told(world, "no answer in time")
    page = (await call("GET", "/webhook-deliveries?state=failed&limit=2", role="viewer"))[1]
    assert [one["id"] for one in page["deliveries"]] == [3, 2]
    assert page["next_cursor"] == 2
    one = (await call("GET", "/webhook-deliveries/1", role="viewer"))[1]
    assert (one["payload"]["type"], one["attempts"][0]["error"]) == ("approval.wanted", "no answer in time")
    assert await call("POST", "/webhook-deliveries/1/resend") == (200, {"id": 1})
    since = "2026-01-01T00:00:00Z"
    assert await call("POST", "/webhooks/resend", {"since": since, "endpoint": 1}) == (200, {"deliveries": 2})
    assert (await call("POST", "/webhooks/1/rotate", {"keep_hours": 1}))[1]["secret"] != made["secret"]
    assert (await call("POST", "/webhooks/1/enable"))[0] == 422
    assert await call("POST", "/webhooks/1/remove") == (200, {"id": 1})
    assert (await call("POST", "/webhooks/1/remove"))[0] == 404
    assert (await call("POST", "/webhook-deliveries/1/resend"))[0] == 422


STATEMENTS: dict[str, tuple[Any, dict[str, Any]]] = {
    **{
        f"deliveries: {name or 'all'}": (
            statement,
            {"state": "failed", "endpoint": 1, "type": "", "before": webhooks.NEWEST, "limit": 51},
        )
        for name, statement in webhooks.PAGES.items()
    },
    "one delivery": (webhooks.ONE, {"id": 7}),
    "its tries": (webhooks.ATTEMPTS, {"id": 7}),
    "what is due": (outbox.CLAIM, {"endpoints": [1], "free": [4], "lease": 60}),
    "old events": (outbox.FORGET, {"days": 30}),
}


def test_no_statement_about_deliveries_reads_a_whole_table(database_url: str) -> None:
    made: Engine = engine(database_url)
    with made.begin() as connection:
        for statement in (
            "INSERT INTO phantoms.webhook_endpoints (url, events, secret) VALUES ('https://a.example', '{video.posted}', 'x')",
            """INSERT INTO phantoms.webhook_events (message_id, type, source, at, data)
                SELECT 'm' || n, 'video.posted', 's' || n, now() - make_interval(mins => n), '{}'
                FROM generate_series(1, 20000) n""",
            """INSERT INTO phantoms.webhook_deliveries (event_id, endpoint_id, state)
                SELECT id, 1 + id % 3, CASE id % 100 WHEN 0 THEN 'pending' WHEN 1 THEN 'failed' ELSE 'delivered' END
                FROM phantoms.webhook_events""",
            """INSERT INTO phantoms.webhook_attempts (delivery_id, at, seconds)
                SELECT id, now(), 1 FROM phantoms.webhook_deliveries""",
        ):
            connection.execute(text(statement))
    with made.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))
        found = {}
        for name, (statement, values) in STATEMENTS.items():
            plan = connection.execute(text(f"EXPLAIN (FORMAT JSON) {statement.text}"), values).scalar_one()
            if whole := set(scans(plan)) - {"webhook_endpoints"}:
                found[name] = whole
    made.dispose()
    assert found == {}
