"""Posts at the desk and in the API: settled and taken down by operators only, once, and with an entry in the audit log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from phantoms_dagster.sandbox.core import Fault
from phantoms_dagster.store.audit import AuditLog
from phantoms_dagster_tests.integration.desk_world import DeskWorld, open_desk
from phantoms_dagster_tests.integration.publishing_world import Studio
from phantoms_dagster_tests.integration.test_desk_api import Program, detail
from phantoms_dagster_tests.integration.test_reconciliation import attempt, studio, unknown, world

__all__ = ["studio", "world"]  # fixtures


@pytest.fixture
async def desk(studio: Studio, database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path, sandbox_url=studio.base_url) as opened:
        yield opened


async def published(studio: Studio) -> str:
    [key] = await studio.ready_to_post()
    await attempt(studio, key)
    return key


def actions(studio: Studio, key: str) -> list[tuple[str, str]]:
    return [(entry.action, entry.who) for entry in AuditLog(studio.world.engine).page(subject=key)]


async def test_a_program_takes_a_post_down_once_and_only_an_operators_token_may(studio: Studio, desk: DeskWorld) -> None:
    key = await published(studio)
    place = f"/videos/{key}/posts/youtube"
    assert detail(await Program(desk, "reviewer").post(f"{place}/takedown", {}), 403)
    program = Program(desk, "operator")
    [listed] = (await program.get("/posts", platform="youtube")).json()["posts"]
    assert (listed["key"], listed["now"]) == (key, "confirmed")
    for _ in range(2):
        answer = await program.post(f"{place}/takedown", {})
        assert answer.status_code == 200, answer.text
        post: dict[str, Any] = answer.json()["post"]
        assert (post["now"], post["after_evidence"]) == ("taken_down", "videos.delete answered 204")
    assert [entry["kind"] for entry in studio.sandbox.ledger].count("youtube.deleted") == 1
    assert actions(studio, key).count(("take down", "operator-program")) == 1
    assert (await program.get("/posts", state="taken_down")).json()["posts"] != []
    assert "unknown state" in detail(await program.get("/posts", state="lost"), 422)
    assert detail(await program.post(f"/videos/{key}/posts/tiktok/takedown", {}), 404)


async def test_a_deletion_that_the_platform_did_not_answer_is_not_recorded(studio: Studio, desk: DeskWorld) -> None:
    key = await published(studio)
    studio.sandbox.faults.append(Fault("youtube.delete", kind="drop_before"))
    said = detail(await Program(desk, "operator").post(f"/videos/{key}/posts/youtube/takedown", {}), 422)
    assert said.startswith("YouTube did not delete the post: ")
    assert studio.world.rows("SELECT state FROM phantoms.post_changes") == []


async def test_a_program_settles_a_post_with_the_url_that_a_person_found(studio: Studio, desk: DeskWorld) -> None:
    key = await unknown(studio, "drop_after")
    program, place = Program(desk, "operator"), f"/videos/{key}/posts/youtube"
    found = (await program.get(place)).json()
    assert (found["post"]["state"], len(found["tries"])) == ("unknown", 1)
    assert detail(await program.post(f"{place}/settle", {"answer": "there"}), 422).startswith("give the URL")
    assert detail(await program.post(f"{place}/settle", {"answer": "perhaps"}), 422)
    [out] = studio.posts()
    answer = await program.post(f"{place}/settle", {"answer": "there", "url": out["remote_id"]})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["post"]["state"], answer.json()["post"]["remote_id"]) == ("published", out["remote_id"])
    assert ("post is there", "operator-program") in actions(studio, key)
    assert "nothing to decide" in detail(await program.post(f"{place}/settle", {"answer": "not there"}), 422)


async def test_a_program_sends_a_post_again_that_is_not_there(studio: Studio, desk: DeskWorld) -> None:
    key = await unknown(studio, "drop_before")
    body = {"answer": "not there", "reason": "I looked at the channel"}
    answer = await Program(desk, "operator").post(f"/videos/{key}/posts/youtube/settle", body)
    assert (answer.status_code, answer.json()["post"]["state"]) == (200, "intent")
    assert "I looked at the channel" in answer.json()["proof"]


async def test_an_operator_takes_a_post_down_at_the_desk_after_a_question(studio: Studio, desk: DeskWorld) -> None:
    key = await published(studio)
    viewer, olga = await desk.logged_in("vic", "viewer"), await desk.logged_in("olga", "operator")
    place = f"/videos/{key}/takedown/youtube"
    assert place not in (await viewer.get(f"/videos/{key}")).text
    assert (await viewer.get(place)).status_code == 403
    assert place in (await olga.get(f"/videos/{key}")).text
    asked = (await olga.get(place)).text
    assert "YouTube deletes the post for good" in asked
    assert studio.world.rows("SELECT state FROM phantoms.post_changes") == []  # a question changes nothing
    done: httpx.Response = await olga.post(place, {"how": "delete"})
    assert done.headers["location"] == f"/videos/{key}"
    shown = (await olga.get(f"/videos/{key}")).text
    assert "The post is no longer on YouTube." in shown
    assert place not in shown
    assert actions(studio, key).count(("take down", "olga")) == 1
    assert (await olga.get(place)).headers["location"] == f"/videos/{key}"
