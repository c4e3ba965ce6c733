"""A video's page tells its whole story, and its raw rows show no secrets."""

from __future__ import annotations

import html
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from phantoms_dagster.desk.masking import masked
from phantoms_dagster.store.audit import Actor, AuditEntry, note
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


async def unknown_post(world: DeskWorld) -> str:
    """A video whose post on TikTok may be out."""
    [key] = await world.waiting()
    world.world.write("UPDATE phantoms.stages SET state = 'deferred', retry_at = clock_timestamp() WHERE stage = 'tiktok/post'")
    world.world.write(
        """INSERT INTO phantoms.posts
            (video_id, platform, account, state, marker, video_sha256, caption_sha256, sandbox, attempted_at, handle)
        SELECT id, 'tiktok', 'tiktok-account', 'unknown', 'm', 'v', 'c', true, clock_timestamp(), '{"publish_id": "v_pub_1"}'
        FROM phantoms.videos WHERE key = :key""",
        key=key,
    )
    return key


async def test_an_operator_settles_an_unknown_post_by_a_form_and_the_audit_log_says_so(world: DeskWorld) -> None:
    key = await unknown_post(world)
    viewer = await world.logged_in("vic", "viewer")
    shown = (await viewer.get(f"/videos/{key}")).text
    assert "An operator can settle it." in shown
    assert (await viewer.post(f"/videos/{key}/settle/tiktok", {"answer": "not there"})).status_code == 403
    operator = await world.logged_in("olga", "operator")
    assert "Publish it again" in (await operator.get(f"/videos/{key}")).text
    for form in ({"answer": "there"}, {"answer": "there", "url": "https://youtu.be/dQw4w9WgXcQ", "unread": "1"}, {"answer": "?"}):
        assert (await operator.post(f"/videos/{key}/settle/tiktok", form)).status_code == 422
    there = {"answer": "there", "url": "7300000000000000000", "unread": "1"}
    assert (await operator.post(f"/videos/{key}/settle/tiktok", there)).status_code == 303
    [post] = world.world.rows("SELECT state, remote_id, proof FROM phantoms.posts")
    assert (post["state"], post["remote_id"]) == ("published", "7300000000000000000")
    assert post["proof"].startswith("person: olga says it is there")
    [entry] = [row for row in world.desk.audit.page(subject=key) if row.action == "post is there"]
    assert (entry.who, entry.via) == ("olga", "desk")
    assert "settle/tiktok" not in (await operator.get(f"/videos/{key}")).text
    again = await operator.post(f"/videos/{key}/settle/tiktok", {"answer": "not there"})
    assert (again.status_code, "not unknown" in again.text) == (422, True)


async def test_a_draft_has_its_caption_to_copy_and_forms_for_how_it_ended(world: DeskWorld) -> None:
    key = await unknown_post(world)
    world.world.write_post("UPDATE phantoms.posts SET state = 'handed_over'")
    world.world.write(
        """UPDATE phantoms.stages SET output = '{"kind": "variant", "caption": "Paste <me> #sea"}' WHERE stage = 'tiktok/variant'"""
    )
    viewer = await world.logged_in("vic", "viewer")
    shown = (await viewer.get(f"/videos/{key}")).text
    assert "waiting for the creator" in shown
    assert "switch on the AI label by hand" in shown
    assert "Paste &lt;me&gt; #sea</textarea>" in shown
    assert "It will not be posted" not in shown
    operator = await world.logged_in("olga", "operator")
    assert "It will not be posted" in (await operator.get(f"/videos/{key}")).text
    assert (await operator.post(f"/videos/{key}/settle/tiktok", {"answer": "not there"})).status_code == 422
    answer = await operator.post(f"/videos/{key}/settle/tiktok", {"answer": "not posted", "reason": "too late"})
    assert answer.status_code == 303
    [post] = world.world.rows("SELECT state, handle, proof FROM phantoms.posts")
    assert (post["state"], post["handle"]) == ("failed", {})
    assert post["proof"] == "person: olga says it will not be posted: too late"
    assert world.world.row(key, "tiktok/post")["state"] == "discarded"


async def test_a_form_can_say_that_an_unknown_post_is_not_there(world: DeskWorld) -> None:
    key = await unknown_post(world)
    operator = await world.logged_in("olga", "operator")
    answer = await operator.post(f"/videos/{key}/settle/tiktok", {"answer": "not there", "reason": "not in the app"})
    assert answer.status_code == 303
    [post] = world.world.rows("SELECT state, handle, proof FROM phantoms.posts")
    assert (post["state"], post["handle"]) == ("intent", {})
    assert post["proof"] == "person: olga says it is not there: not in the app"
    assert (await operator.post(f"/videos/{key}/settle/nowhere", {"answer": "not there"})).status_code == 404


async def test_stored_values_are_shown_as_words(world: DeskWorld) -> None:
    [key] = await world.waiting()
    booked = {"youtube": {"at": "2026-11-28T19:44:00+00:00", "state": "booked"}}
    with world.world.engine.begin() as connection:
        note(connection, [AuditEntry(Actor("ann", "desk"), "move in the calendar", key, before=None, after=booked)])
    operator = await world.logged_in("olga", "operator")
    for path in (f"/videos/{key}", "/audit"):
        shown = html.unescape((await operator.get(path)).text)
        assert "at 2026-11-28 19:44 UTC, state booked" in shown, path
        assert "{'" not in shown, path
