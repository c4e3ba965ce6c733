"""A video's page tells its whole story, and its raw rows show no secrets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from phantoms_dagster.desk.masking import masked
from phantoms_dagster_tests.integration.desk_world import DeskWorld, open_desk
from phantoms_dagster_tests.integration.test_desk_pipeline import fail, failed


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path, web_url="http://dagster.example:3000") as opened:
        yield opened


async def test_a_videos_page_tells_its_whole_story(world: DeskWorld) -> None:
    [key] = world.world.add()
    await fail(world, [key])
    browser = await world.logged_in("vic", "viewer")
    shown = (await browser.get(f"/videos/{key}")).text
    for said in (
        "Added from test",
        "script failed for good",
        "answered 503",
        "http://dagster.example:3000/runs/run-person",
        "Evidence",
    ):
        assert said in shown
    assert (await browser.get(f"/videos/{key}/raw")).status_code == 403
    assert (await browser.get("/videos/nobody")).status_code == 404


async def test_a_video_that_is_out_everywhere_goes_nowhere_any_more(world: DeskWorld) -> None:
    [key] = await world.waiting()
    browser = await world.logged_in("vic", "viewer")
    assert "goes out when approved" in (await browser.get(f"/videos/{key}")).text
    world.world.write("UPDATE phantoms.stages SET state = 'done' WHERE stage LIKE '%/post'")
    shown = (await browser.get(f"/videos/{key}")).text
    assert "goes out when approved" not in shown
    assert "so far · posted" in shown


async def test_decisions_deeds_and_posts_are_in_the_story(world: DeskWorld) -> None:
    [key] = await world.waiting()
    world.desk.decisions.hold(key, reviewer="ann", note="the lawyer looks", via="desk")
    world.desk.decisions.release(key, reviewer="ann", via="desk")
    world.desk.decisions.decide(key, approved=True, reviewer="ben", note="good", via="cli")
    operator = await world.logged_in("olga", "operator")
    shown = (await operator.get(f"/videos/{key}")).text
    for said in ("hold by ann", "take back from hold by ann", "Approved by ben"):
        assert said in shown
    assert (await operator.get(f"/videos/{key}/raw")).json()["approvals"][0]["reviewer"] == "ben"


async def test_what_a_provider_said_is_masked_wherever_it_is_shown(world: DeskWorld) -> None:
    [key] = world.world.add()
    store, claims = await world.world.claim("script", [key], owner="failing")
    said = "PUT https://up.example/1?sig=s3cret-1 with access_token=s3cret-2 and Authorization: Bearer s3cret-3 was refused"
    for claim in claims.claimed:
        await store.finish(claim, failed(said))
    viewer = await world.logged_in("vic", "viewer")
    operator = await world.logged_in("olga", "operator")
    for browser, path in ((viewer, f"/videos/{key}"), (viewer, "/pipeline"), (operator, f"/videos/{key}/raw")):
        shown = (await browser.get(path)).text
        assert "PUT https://up.example/1?***" in shown, path
        assert "s3cret" not in shown, path


def test_secrets_are_masked_wherever_they_are() -> None:
    given = {
        "access_token": "abc",
        "upload_url": "https://up.example/1?sig=1",
        "note": "GET https://x.example/v?key=s3cret failed; Authorization: Bearer abc.def",
        "list": [{"client_secret": "x", "code": 503}],
    }
    found = masked(given)
    assert found["access_token"] == found["upload_url"] == found["list"][0]["client_secret"] == "***"
    assert found["note"] == "GET https://x.example/v?*** failed; Authorization: Bearer ***"
    assert found["list"][0]["code"] == 503
