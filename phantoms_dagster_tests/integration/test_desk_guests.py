"""Guest links: a person without a login makes one decision about one video, and can do nothing else."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from phantoms_dagster.desk.access import ROLES, Role
from phantoms_dagster.desk.attempts import PER_ADDRESS
from phantoms_dagster.store.audit import Actor
from phantoms_dagster.store.users import digest
from phantoms_dagster_tests.integration.desk_world import TESTER, Browser, DeskWorld, master, open_desk
from phantoms_dagster_tests.integration.stage_world import SCRIPT, output_of

KIM = Actor("kim", "desk", "10.0.0.1")
WHO = "Dr. Weber (guest of kim)"


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path, desk_undo_seconds=0.0) as opened:
        opened.add_user("somebody", "operator")
        yield opened


async def invited(world: DeskWorld, *, hours: float = 72) -> tuple[str, str]:
    """A video that waits, and the path of a link to it."""
    file = world.keep(b"a video of many bytes" * 50)
    [key] = await world.waiting(outputs={"rendered_video": master(file)})
    return key, path_of(world, key, hours=hours)


def path_of(world: DeskWorld, key: str, *, hours: float = 72) -> str:
    _, secret = world.desk.guests.add(key, "Dr. Weber", KIM, content_sha256=world.content(key), hours=hours)
    return f"/guest/{secret}"


def guest(world: DeskWorld, address: str = "203.0.113.7") -> Browser:
    return world.browser(address=address)


async def approve(browser: Browser, path: str) -> httpx.Response:
    """Open the link and press Approve, whether the page has that button or not."""
    await opened(browser, path)
    return await browser.post(path, {"answer": "approve"})


async def opened(browser: Browser, path: str) -> httpx.Response:
    page = await browser.get(path)
    if (found := re.search(r'name="_csrf" value="([^"]+)"', page.text)) is not None:
        browser.csrf = found[1]
    return page


def retitled(world: DeskWorld, key: str) -> None:
    """The video has other words now."""
    changed = output_of("script", script=SCRIPT.model_copy(update={"title": "Another title"})).model_dump_json()
    statement = """UPDATE phantoms.stages SET output = CAST(:o AS jsonb) WHERE stage = 'script'
        AND video_id = (SELECT id FROM phantoms.videos WHERE key = :key)"""
    world.world.write(statement, o=changed, key=key)


def spent(world: DeskWorld) -> list[str]:
    """The states of all links, newest first."""
    return [link.state for link in world.desk.guests.page()]


async def test_a_guest_sees_the_video_and_the_texts_and_approves_once_with_their_name(world: DeskWorld) -> None:
    key, path = await invited(world)
    browser = guest(world)
    page = await opened(browser, path)
    assert page.status_code == 200
    assert "kim asks Dr. Weber" in page.text
    for words in ("YouTube", "TikTok", "Instagram", SCRIPT.title):
        assert words in page.text
    address = re.search(r'<video src="([^"]+)"', page.text)
    assert address is not None
    part = await browser.client.get(address[1].replace("&amp;", "&"), headers={"Range": "bytes=0-10"})
    assert (part.status_code, part.content) == (206, b"a video of ")
    answer = await browser.post(path, {"answer": "approve"})
    assert answer.status_code == 200
    assert "Approved: thank you" in answer.text
    [decision] = world.approvals(key)
    assert (decision["approved"], decision["reviewer"], decision["via"]) == (True, WHO, "guest")
    assert decision["content_sha256"] == world.desk.guests.page()[0].content_sha256
    deeds = [(row.who, row.via, row.address, row.action) for row in world.desk.audit.page(subject=key)]
    assert deeds == [(WHO, "guest", "203.0.113.7", "approve"), ("kim", "desk", "10.0.0.1", "make guest link")]


async def test_a_guest_rejects_with_a_reason_and_not_without_one(world: DeskWorld) -> None:
    key, path = await invited(world)
    browser = guest(world)
    await opened(browser, path)
    silent = await browser.post(path, {"answer": "reject", "note": "  "})
    assert silent.status_code == 422
    assert "Please say why" in silent.text
    assert spent(world) == ["open"]
    assert "Rejected: thank you" in (await browser.post(path, {"answer": "reject", "note": "the dose is wrong"})).text
    [decision] = world.approvals(key)
    assert (decision["approved"], decision["note"], decision["reviewer"]) == (False, "the dose is wrong", WHO)


async def test_an_expired_a_revoked_and_a_used_link_never_approve(world: DeskWorld) -> None:
    key, path = await invited(world)
    browser = guest(world)
    await opened(browser, path)  # the page was open in time; the answer comes late
    world.world.write("UPDATE phantoms.guest_links SET expires_at = clock_timestamp() - interval '1 second'")
    late = await browser.post(path, {"answer": "approve"})
    assert late.status_code == 409
    assert "has expired" in late.text
    revoked = path_of(world, key)
    await opened(browser, revoked)
    number = world.desk.guests.page()[0].id
    world.desk.guests.revoke(number, KIM)
    refused = await browser.post(revoked, {"answer": "approve"})
    assert refused.status_code == 409
    assert "was revoked" in refused.text
    assert world.approvals(key) == []
    used = path_of(world, key)
    await opened(browser, used)
    await browser.post(used, {"answer": "reject", "note": "no"})
    again = await browser.post(used, {"answer": "approve"})
    assert again.status_code == 409
    assert [one["approved"] for one in world.approvals(key)] == [False]
    assert spent(world) == ["used", "revoked", "expired"]


@pytest.mark.parametrize("how", ["removed", "made a viewer", "token revoked"])
async def test_the_links_of_a_user_who_may_no_longer_decide_are_revoked(world: DeskWorld, how: str) -> None:
    users, boss = world.desk.users, Actor("boss", "cli")
    if how == "token revoked":
        users.add_token(KIM.name, "reviewer", "a secret of a program", actor=boss)
    else:
        world.add_user(KIM.name, "reviewer")
    key, path = await invited(world)
    browser = guest(world)
    await opened(browser, path)  # the page was open in time; the answer comes late
    end = {
        "removed": lambda: users.remove(KIM.name, actor=boss),
        "made a viewer": lambda: users.set_role(KIM.name, "viewer", actor=boss),
        "token revoked": lambda: users.revoke_token(KIM.name, actor=boss),
    }
    end[how]()
    refused = await browser.post(path, {"answer": "approve"})
    assert refused.status_code == 409
    assert world.approvals(key) == []
    [link] = world.desk.guests.page()
    assert (link.state, link.revoked_by) == ("revoked", "boss")


async def test_an_altered_link_opens_and_approves_nothing(world: DeskWorld) -> None:
    key, path = await invited(world)
    secret = path.rpartition("/")[2]
    stored = world.world.rows("SELECT secret_sha256 FROM phantoms.guest_links")[0]["secret_sha256"]
    assert stored == digest(secret)  # reading the table gives nobody a link
    browser = guest(world)
    await opened(browser, path)
    for altered in (secret[:-1], f"{secret}A", secret.swapcase(), stored, secret[::-1], "1", "%00", "..%2Fguest-links", "x" * 3000):
        page = await browser.client.get(f"/guest/{altered}")
        assert page.status_code == 404, altered
        assert "<video" not in page.text
        assert (await browser.post(f"/guest/{altered}", {"answer": "approve"})).status_code == 404, altered
    assert world.approvals(key) == []
    assert spent(world) == ["open"]


@pytest.mark.parametrize("answer", ["approve", "reject"])
async def test_a_guest_never_answers_about_other_content_than_the_link_names(world: DeskWorld, answer: str) -> None:
    key, path = await invited(world)
    browser = guest(world)
    await opened(browser, path)
    retitled(world, key)
    sent = await browser.post(path, {"answer": answer, "note": "no", "content": world.content(key)})
    assert sent.status_code == 409
    assert "The video was changed" in sent.text
    page = await opened(browser, path)
    assert "<video" not in page.text  # what is there now was not meant for them
    assert "Another title" not in page.text
    assert world.approvals(key) == []
    assert spent(world) == ["outdated"]


async def test_a_video_that_is_changed_while_the_answer_can_be_undone_is_not_approved(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    async with open_desk(database_url, redis_url, tmp_path, desk_undo_seconds=3600.0) as world:
        world.add_user("somebody", "operator")
        key, path = await invited(world)
        browser = guest(world)
        assert "thank you" in (await approve(browser, path)).text
        assert world.approvals(key) == []  # it can be undone
        retitled(world, key)
        world.world.write("UPDATE phantoms.pending_decisions SET commit_at = clock_timestamp() - interval '1 second'")
        [refused] = world.desk.pending.commit_due()
        assert refused.state == "refused"
        assert world.approvals(key) == []
        assert "came too late" in (await browser.get(path)).text


async def test_an_operator_undoes_a_guests_answer_and_the_link_stays_used(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    async with open_desk(database_url, redis_url, tmp_path, desk_undo_seconds=3600.0) as world:
        operator = await world.logged_in("olga", "operator")
        key, path = await invited(world)
        browser = guest(world)
        await approve(browser, path)
        number = world.world.rows("SELECT id FROM phantoms.pending_decisions")[0]["id"]
        assert (await operator.post(f"/decisions/{number}/undo")).status_code == 303
        assert world.desk.decisions.undecided() == [key]
        assert "was undone" in (await browser.get(path)).text
        assert (await approve(browser, path)).status_code == 409
        assert world.desk.decisions.undecided() == [key]


async def test_of_a_link_that_is_used_twice_at_the_same_second_one_answer_counts(world: DeskWorld) -> None:
    for _ in range(4):
        key, path = await invited(world)
        browsers = [guest(world), guest(world, "203.0.113.8")]
        for browser in browsers:
            await opened(browser, path)
        forms = ({"answer": "approve"}, {"answer": "reject", "note": "no"})
        answers = await asyncio.gather(*(one.post(path, form) for one, form in zip(browsers, forms, strict=True)))
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        assert len(world.approvals(key)) == 1
        assert world.approvals(key)[0]["approved"] is (answers[0].status_code == 200)


async def test_of_a_guest_and_a_reviewer_who_decide_at_the_same_second_one_counts(world: DeskWorld) -> None:
    kim = await world.logged_in("kim")
    for _ in range(4):
        key, path = await invited(world)
        browser = guest(world)
        await opened(browser, path)
        await kim.get(f"/review/{key}")
        form = {"answer": "reject", "note": "no", "content": world.content(key)}
        theirs, ours = await asyncio.gather(browser.post(path, {"answer": "approve"}), kim.post(f"/review/{key}/decide", form))
        assert (theirs.status_code, ours.status_code) in ((200, 409), (409, 303))
        [decision] = world.approvals(key)
        assert decision["approved"] is (theirs.status_code == 200)


async def test_a_guest_is_told_if_the_video_was_decided_or_put_on_hold_meanwhile(world: DeskWorld) -> None:
    key, path = await invited(world)
    browser = guest(world)
    await opened(browser, path)
    world.desk.decisions.hold(key, reviewer="ann", note="ask the lawyer", via="desk")
    held = await browser.post(path, {"answer": "approve"})
    assert held.status_code == 409
    assert "put on hold" in held.text
    assert "lawyer" not in held.text  # what the people of the desk say to each other is not for guests
    world.desk.decisions.release(key, reviewer="ann", via="desk")
    assert "<video" in (await opened(browser, path)).text
    world.desk.decisions.decide(key, approved=False, reviewer="ann", note="secret words", via="cli")
    late = await browser.post(path, {"answer": "approve"})
    assert late.status_code == 409
    assert "Somebody else was first" in late.text
    assert "secret words" not in late.text
    assert len(world.approvals(key)) == 1


async def test_opening_a_link_changes_nothing_however_often_it_happens(world: DeskWorld) -> None:
    key, path = await invited(world)
    tables = ("guest_links", "audit_log", "pending_decisions", "approvals", "stages", "desk_sessions")

    def everything() -> list[object]:
        return [world.world.rows(f"SELECT md5(string_agg(t::text, '' ORDER BY t::text)) AS m FROM phantoms.{t} t") for t in tables]

    before = everything()
    for agent in ("Slackbot-LinkExpanding 1.0", "WhatsApp/2.0", "facebookexternalhit/1.1", "Mozilla/5.0"):
        for method in ("GET", "HEAD"):
            preview = await guest(world).client.request(
                method, path, params={"answer": "approve"}, headers={"User-Agent": agent, "Purpose": "prefetch"}
            )
            assert preview.status_code in (200, 405)
    assert everything() == before
    # A program that sends the form without having the page's token is refused.
    assert (await guest(world).client.post(path, data={"answer": "approve"})).status_code == 403
    assert everything() == before
    assert "thank you" in (await approve(guest(world), path)).text
    assert len(world.approvals(key)) == 1


async def test_the_page_gives_its_address_to_no_other_site_and_links_nowhere(world: DeskWorld) -> None:
    _, path = await invited(world)
    page = await guest(world).get(path)
    assert page.headers["referrer-policy"] == "same-origin"
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["x-robots-tag"] == "noindex, nofollow"
    addresses = re.findall(r'(?:src|href|poster|action)="([^"]*)"', page.text)
    assert addresses
    assert {urlsplit(one).netloc for one in addresses} == {""}
    assert {one.split("/")[1] for one in addresses} == {"static", "media"}
    assert path.rpartition("/")[2] not in page.text  # copied pages hold no link


async def test_a_link_and_the_cookie_that_comes_with_it_open_nothing_else(world: DeskWorld) -> None:
    _, path = await invited(world)
    other = await world.waiting()
    browser = guest(world)
    page = await opened(browser, path)
    secret = path.rpartition("/")[2]
    wrong = []
    for method, route in sorted(ROLES):
        if ROLES[method, route] is Role.PUBLIC or route == "/events":
            continue
        where = route.replace("{key}", other[0]).replace("{number}", "1")
        for headers in ({"X-CSRF-Token": browser.csrf}, {"Authorization": f"Bearer {secret}"}):
            answer = await browser.client.request(method, where, headers=headers)
            if not (answer.status_code in (401, 403) or answer.headers.get("location", "").startswith("/login")):
                wrong.append((method, route, answer.status_code))
    assert wrong == []
    video_address = re.findall(r'<video src="([^"]+)"', page.text)[0].replace("&amp;", "&")
    elsewhere = re.sub(r"/media/[0-9a-f]{64}", f"/media/{'0' * 64}", video_address)
    assert (await browser.client.get(elsewhere)).status_code == 403


async def test_guessing_at_links_ends_after_thirty_tries_from_one_address(world: DeskWorld) -> None:
    _, path = await invited(world)
    for number in range(PER_ADDRESS):
        assert (await guest(world).get(f"/guest/{'x' * 40}{number}")).status_code == 404
    stopped = await guest(world).get(path)
    assert stopped.status_code == 429
    assert int(stopped.headers["retry-after"]) > 0
    assert "<video" not in stopped.text
    assert (await guest(world, "203.0.113.99").get(path)).status_code == 200


async def test_a_reviewer_makes_a_link_sees_its_address_once_and_revokes_it(world: DeskWorld) -> None:
    kim = await world.logged_in("kim")
    [key] = await world.waiting()
    assert "Ask a guest" in (await kim.get(f"/review/{key}")).text
    form = {"guest": " Dr.  Weber ", "hours": "24", "content": world.content(key)}
    made = await kim.post(f"/review/{key}/guest-links", form)
    assert made.status_code == 200
    [address] = re.findall(r'value="(http://127.0.0.1:4000/guest/[^"]+)"', made.text)
    assert (await guest(world).get(urlsplit(address).path)).status_code == 200
    listed = await kim.get("/guest-links", params={"key": key})
    assert "Dr. Weber" in listed.text
    assert urlsplit(address).path not in listed.text
    [link] = world.desk.guests.page()
    assert (await kim.post(f"/guest-links/{link.id}/revoke")).status_code == 303
    assert "revoked" in (await kim.get("/guest-links")).text
    assert "was revoked" in (await guest(world).get(urlsplit(address).path)).text


async def test_who_may_only_look_makes_and_revokes_no_link(world: DeskWorld) -> None:
    viewer = await world.logged_in("vic", "viewer")
    key, path = await invited(world)
    assert "Ask a guest" not in (await viewer.get(f"/review/{key}")).text
    form = {"guest": "me", "hours": "24", "content": world.content(key)}
    assert (await viewer.post(f"/review/{key}/guest-links", form)).status_code == 403
    assert (await viewer.post(f"/guest-links/{world.desk.guests.page()[0].id}/revoke")).status_code == 403
    assert spent(world) == ["open"]
    assert (await guest(world).get(path)).status_code == 200


async def test_no_link_is_made_for_what_cannot_be_decided_or_was_not_looked_at(world: DeskWorld) -> None:
    kim = await world.logged_in("kim")
    key, other, held = await world.waiting(3)
    await kim.get("/review")
    form = {"guest": "Dr. Weber", "hours": "24", "content": world.content(key)}
    bad = (
        {"guest": ""},
        {"guest": "x" * 61},
        {"guest": "a\u202eb"},
        {"hours": "0"},
        {"hours": "9999"},
        {"hours": "soon"},
        {"content": "0" * 64},
        {"content": ""},
    )
    for wrong in bad:
        assert (await kim.post(f"/review/{key}/guest-links", {**form, **wrong})).status_code == 422, wrong
    world.desk.decisions.decide(other, approved=True, reviewer="ann", via="cli")
    world.desk.decisions.hold(held, reviewer="ann", via="cli")
    for one in (other, held):
        assert (await kim.post(f"/review/{one}/guest-links", {**form, "content": world.content(one)})).status_code == 409
    assert world.desk.guests.page() == []


async def test_an_approval_of_the_desk_that_names_no_content_is_refused(world: DeskWorld) -> None:
    kim = await world.logged_in("kim")
    [key] = await world.waiting()
    await kim.get("/review")
    assert (await kim.post(f"/review/{key}/decide", {"answer": "approve"})).status_code == 422
    assert world.approvals(key) == []


async def test_the_api_makes_lists_and_revokes_links_and_never_shows_a_secret_again(world: DeskWorld) -> None:
    world.desk.users.add_token("robot", "reviewer", "phantoms_robot", actor=TESTER)
    client = world.browser(address="10.0.0.7").client
    headers = {"Authorization": "Bearer phantoms_robot"}
    [key] = await world.waiting()
    body = {"guest": "Dr. Weber", "content": world.content(key), "hours": 1}
    made = await client.post(f"/api/v1/videos/{key}/guest-links", json=body, headers=headers)
    assert made.status_code == 201
    path = urlsplit(made.json()["url"]).path
    assert "<video" in (await guest(world).get(path)).text
    listed = await client.get("/api/v1/guest-links", params={"key": key}, headers=headers)
    [link] = listed.json()["links"]
    assert (link["guest"], link["state"], link["made_by"]) == ("Dr. Weber", "open", "robot")
    assert path.rpartition("/")[2] not in json.dumps(listed.json())
    revoked = await client.post(f"/api/v1/guest-links/{link['id']}/revoke", headers=headers)
    assert revoked.json()["state"] == "revoked"
    assert (await client.post("/api/v1/guest-links/999/revoke", headers=headers)).status_code == 404
    assert (await client.post("/api/v1/videos/none/guest-links", json=body, headers=headers)).status_code == 404
