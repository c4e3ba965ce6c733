"""`phantoms webhooks`, as people type it."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from phantoms_dagster.domain.webhooks import RetrySchedule
from phantoms_dagster.store.outbox import DeliveryResult, Outbox
from phantoms_dagster_tests.integration.stage_world import World, open_world
from phantoms_dagster_tests.integration.test_desk_commands import MADE, phantoms

URL = "https://hooks.example.org/T0/s3cret-path"


@pytest.fixture
async def world(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", database_url)
    monkeypatch.setenv("PHANTOMS_DESK_URL", "https://desk.example")
    async with open_world(database_url) as opened:
        yield opened


async def test_an_endpoint_is_added_rotated_and_removed_and_its_secret_is_shown_once(world: World) -> None:
    assert "phantoms webhooks add URL" in phantoms("webhooks", "list").stdout
    added = phantoms("webhooks", "add", URL, "--event", "video.posted", "--note", "the newsroom").stdout
    first = added.splitlines()[-1]
    assert added.startswith("added endpoint 1")
    assert first.startswith("whsec_")
    rotated = phantoms("webhooks", "rotate", "1", "--keep-hours", "2").stdout.strip()
    assert rotated.startswith("whsec_")
    assert rotated != first
    shown = phantoms("webhooks", "list").stdout
    assert "video.posted" in shown
    assert "whsec_" not in shown + phantoms("webhooks", "list", "--json").stdout
    assert "removed endpoint 1" in phantoms("webhooks", "remove", "1").stdout
    again = phantoms("webhooks", "remove", "1")
    assert again.exit_code == 2
    assert "phantoms webhooks list" in again.stderr
    assert [row["action"] for row in world.rows("SELECT action FROM phantoms.audit_log ORDER BY id")] == [
        "add",
        "rotate the secret",
        "remove",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "http://hooks.example.org/s3cret-path"], "use https"),
        (["add", "https://192.168.1.9/s3cret-path"], "PHANTOMS_WEBHOOK_TARGETS=private"),
        (["add", URL, "--event", "video.liked"], "the events are approval.wanted"),
        (["rotate", "7"], "phantoms webhooks list"),
        (["enable", "7"], "phantoms webhooks list"),
        (["deliveries", "7"], "phantoms webhooks deliveries"),
        (["deliveries", "--state", "odd"], "the states are pending"),
        (["deliveries", "--event", "odd"], "the events are approval.wanted"),
        (["resend"], "--failed --since TIME"),
        (["resend", "1", "--failed"], "--failed --since TIME"),
        (["resend", "--failed"], "--since 6h"),
        (["resend", "--failed", "--since", "once"], "give 30m, 6h, 2d"),
    ],
)
async def test_what_is_wrong_is_said_with_the_next_step(world: World, arguments: list[str], said: str) -> None:
    result = phantoms("webhooks", *arguments)
    assert (result.exit_code, "Traceback" in result.stderr) == (2, False)
    assert said in result.stderr
    assert "s3cret" not in result.stderr


async def test_deliveries_are_listed_shown_and_sent_again(world: World) -> None:
    phantoms("webhooks", "add", URL)
    await world.carry(world.add(2), *MADE)
    out = Outbox(world.engine, RetrySchedule(waits=()))
    for one in out.claim({1: 9}):
        out.end(one, DeliveryResult(datetime.now(UTC), 0.25, 500, "answered 500"), spread=0)
    listed = phantoms("webhooks", "deliveries", "--state", "failed").stdout
    assert listed.count("given up after 1 tries: answered 500") == 2
    shown = phantoms("webhooks", "deliveries", "1").stdout
    assert "approval.wanted msg_" in shown
    assert "0.25 s  answered 500" in shown
    assert not re.findall(r"\d\d:\d\d(?::\d\d)? (?! *[A-Z])", listed + shown.partition("{")[0]), "a time without its zone"
    assert "https://desk.example/review/" in shown
    found = json.loads(phantoms("webhooks", "deliveries", "1", "--json").stdout)
    assert (found["state"], json.loads(found["payload"])["type"]) == ("failed", "approval.wanted")
    assert "delivery 1 will be sent again" in phantoms("webhooks", "resend", "1").stdout
    assert "1 delivery will be sent again" in phantoms("webhooks", "resend", "--failed", "--since", "6h").stdout
    assert json.loads(phantoms("webhooks", "resend", "--failed", "--since", "6h", "--json").stdout) == {"deliveries": 0}
    assert phantoms("webhooks", "deliveries", "--state", "pending").stdout.count("approval.wanted") == 2
