"""The API does what the pages do, once, for everyone whose role allows it, and says clearly what it refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from phantoms_dagster.desk.api.document import made
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.store import answers
from phantoms_dagster.store.audit import Actor
from phantoms_dagster.store.booking_changes import BookingChanges
from phantoms_dagster.store.users import RoleName
from phantoms_dagster_tests.integration.desk_world import TESTER, DeskWorld, open_desk
from phantoms_dagster_tests.integration.test_dead_letters import fail


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path) as opened:
        opened.add_user("somebody")
        yield opened


class Program:
    """A program with a token."""

    def __init__(self, world: DeskWorld, role: RoleName, name: str = "") -> None:
        self.name = name or f"{role}-program"
        world.desk.users.add_token(self.name, role, f"phantoms_{self.name}", actor=TESTER)
        self.client = world.browser(address="10.0.0.9").client
        self.client.headers["Authorization"] = f"Bearer phantoms_{self.name}"

    async def get(self, path: str, **query: Any) -> httpx.Response:
        return await self.client.get(f"/api/v1{path}", params=query or None)

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return await self.client.post(f"/api/v1{path}", json=body, headers=headers)


def detail(answer: httpx.Response, status: int) -> str:
    """What a problem says."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: str = answer.json()["detail"]
    return found


# --- what cannot be read


async def test_a_program_without_a_token_or_with_a_body_that_is_not_json_learns_what_is_needed(world: DeskWorld) -> None:
    """The answer was that its page was too old, and `0: JSON decode error`."""
    bare = world.browser().client
    person = await world.logged_in("kim", "operator")
    said = detail(await person.client.post("/api/v1/briefs", json={"briefs": [{"title": "Snow"}]}), 403)
    assert "needs a token: `Authorization: Bearer ...`" in said
    assert "X-CSRF-Token" in said
    assert detail(await bare.post("/api/v1/briefs", json={}), 401)
    program = Program(world, "operator")
    headers = {"Content-Type": "application/json"}
    broken = await program.client.post("/api/v1/briefs", content='{"briefs": [', headers=headers)
    assert detail(broken, 422).startswith("the body is not valid JSON: ")
    other = await program.client.post("/api/v1/briefs", content='"x"', headers=headers)
    assert detail(other, 422).startswith("the body: ")


# --- what is made once


async def test_a_guest_link_and_an_endpoint_are_made_once_however_often_the_request_is_sent(world: DeskWorld) -> None:
    """The second request made a second one, and the secret of the first, whose answer was lost, was never seen."""
    [video] = await world.waiting()
    program, stranger = Program(world, "operator"), Program(world, "operator", "stranger")
    requests: dict[str, dict[str, Any]] = {
        f"/videos/{video}/guest-links": {"guest": "Dr. Weber", "content": world.content(video)},
        "/webhooks": {"url": "https://hooks.example.org/x"},
        "/webhooks/1/rotate": {},
    }
    for number, (path, body) in enumerate(requests.items()):
        key = {"Idempotency-Key": f"once-{number}"}
        sent = await asyncio.gather(*(program.post(path, body, **key) for _ in range(3)))
        assert {answer.status_code for answer in sent} == {200 if "rotate" in path else 201}, sent[0].text
        assert len({answer.text for answer in sent}) == 1, path
        changed = {"guest": "Somebody"} if "guest" in path else {"keep_hours": 1} if "rotate" in path else {"note": "other"}
        assert "used for another request" in detail(await program.post(path, {**body, **changed}, **key), 422)
        other = await stranger.post(path, body, **key)  # a key is of who sent it
        assert other.text != sent[0].text
        assert (await program.post(path, body)).text not in (sent[0].text, other.text)
    assert world.world.rows("SELECT count(*) AS n FROM phantoms.guest_links")[0]["n"] == 3
    assert world.world.rows("SELECT count(*) AS n FROM phantoms.webhook_endpoints")[0]["n"] == 3


async def test_a_request_that_is_sent_again_shows_a_secret_only_while_it_is_that_of_the_endpoint(world: DeskWorld) -> None:
    program = Program(world, "operator")
    key = {"Idempotency-Key": "once"}
    made = (await program.post("/webhooks", {"url": "https://hooks.example.org/x"}, **key)).json()
    [kept] = world.world.rows("SELECT answer::text AS text FROM phantoms.api_answers")
    assert made["secret"] not in kept["text"]
    await program.post("/webhooks/1/rotate", {})
    said = detail(await program.post("/webhooks", {"url": "https://hooks.example.org/x"}, **key), 422)
    assert "endpoint 1 now has another secret or is gone" in said
    await program.post("/webhooks/1/remove")
    assert "is gone" in detail(await program.post("/webhooks", {"url": "https://hooks.example.org/x"}, **key), 422)


async def test_what_is_kept_of_a_guest_link_opens_nothing(world: DeskWorld) -> None:
    [video] = await world.waiting()
    program = Program(world, "reviewer")
    body = {"guest": "Dr. Weber", "content": world.content(video)}
    made = (await program.post(f"/videos/{video}/guest-links", body, **{"Idempotency-Key": "once"})).json()
    guest = world.browser()
    assert (await guest.get(f"/guest/{made['url'].rsplit('/', 1)[1]}")).status_code == 200
    [kept] = world.world.rows("SELECT answer FROM phantoms.api_answers")
    assert "url" not in kept["answer"]
    assert (await guest.get(f"/guest/{kept['answer']['nonce']}")).status_code == 404


# --- briefs


async def test_briefs_are_taken_once_however_often_the_request_is_sent(world: DeskWorld) -> None:
    program = Program(world, "operator")
    body = {"briefs": [{"title": "Octopuses have three hearts"}, {"title": "Honey never spoils", "priority": 1}]}
    first = await program.post("/briefs", body, **{"Idempotency-Key": "monday-1"})
    assert first.status_code == 201, first.text
    assert [one["new"] for one in first.json()["videos"]] == [True, True]
    again = await program.post("/briefs", body, **{"Idempotency-Key": "monday-1"})
    assert (again.status_code, again.json()) == (201, first.json())
    without = await program.post("/briefs", body)
    assert [one["new"] for one in without.json()["videos"]] == [False, False]
    other = await program.post("/briefs", {"briefs": [{"title": "Bananas are berries"}]}, **{"Idempotency-Key": "monday-1"})
    assert "new key" in detail(other, 422)
    assert len(world.world.rows("SELECT 1 FROM phantoms.videos")) == 2
    stranger = Program(world, "operator", "stranger")
    own = await stranger.post("/briefs", {"briefs": [{"title": "Bananas are berries"}]}, **{"Idempotency-Key": "monday-1"})
    assert own.json()["videos"][0]["new"]
    deeds = world.world.rows("SELECT who, via, action FROM phantoms.audit_log WHERE action = 'add video' ORDER BY id")
    assert tuple(deeds[0].values()) == ("operator-program", "api", "add video")
    assert len(deeds) == 3


async def test_two_requests_with_one_key_at_the_same_moment_get_one_answer(world: DeskWorld) -> None:
    program = Program(world, "operator")
    body = {"briefs": [{"title": f"Number {n}"} for n in range(30)]}
    sent = [program.post("/briefs", body, **{"Idempotency-Key": "twice"}) for _ in range(4)]
    found = await asyncio.gather(*sent)
    assert {answer.status_code for answer in found} == {201}
    assert len({answer.text for answer in found}) == 1
    assert all(one["new"] for one in found[0].json()["videos"])


async def test_a_key_whose_first_request_is_not_answered_yet_is_a_conflict(
    world: DeskWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program(world, "operator")
    monkeypatch.setattr(answers, "WAIT_MILLISECONDS", 50)
    statement = "INSERT INTO phantoms.api_answers (who, key, body_sha256) VALUES ('operator-program', 'slow', 'x')"
    with world.desk.services.engine.connect() as busy:
        busy.exec_driver_sql(statement)
        answer = await program.post("/briefs", {"briefs": [{"title": "Snow"}]}, **{"Idempotency-Key": "slow"})
        assert "not answered yet" in detail(answer, 409)
        busy.rollback()
    answer = await program.post("/briefs", {"briefs": [{"title": "Snow"}]}, **{"Idempotency-Key": "slow"})
    assert answer.status_code == 201


async def test_a_key_is_forgotten_after_a_day(world: DeskWorld) -> None:
    program = Program(world, "operator")
    for title in ("Rain", "Hail"):
        answer = await program.post("/briefs", {"briefs": [{"title": title}]}, **{"Idempotency-Key": "weather"})
        assert answer.status_code == 201, answer.text
        world.world.write("UPDATE phantoms.api_answers SET made_at = made_at - interval '25 hours'")
    await program.post("/briefs", {"briefs": [{"title": "Fog"}]}, **{"Idempotency-Key": "other"})
    assert [row["key"] for row in world.world.rows("SELECT key FROM phantoms.api_answers")] == ["other"]


async def test_one_bad_brief_keeps_all_of_a_request_out_and_is_named(world: DeskWorld) -> None:
    program = Program(world, "operator")
    body = {"briefs": [{"title": "Good"}, {"title": "Bad", "channel": "nowhere"}, {"title": "Good"}]}
    checked = await program.post("/briefs/check", body)
    assert checked.json()["good"] == 1
    assert [line.split(":")[0] for line in checked.json()["errors"]] == ["brief 2", "brief 3"]
    answer = await program.post("/briefs", body, **{"Idempotency-Key": "k"})
    assert "brief 2: unknown channel 'nowhere'" in detail(answer, 422)
    assert len(answer.json()["errors"]) == 2
    assert world.world.rows("SELECT 1 FROM phantoms.videos") == []


# --- reading


async def test_videos_are_found_by_the_search_of_the_pipeline_page_by_page(world: DeskWorld) -> None:
    program = Program(world, "viewer")
    keys = await world.waiting(3)
    found, cursor = [], None
    while True:
        answer = await program.get("/videos", q="stage:approval state:ready", limit=2, **({"cursor": cursor} if cursor else {}))
        found += [video["key"] for video in answer.json()["videos"]]
        assert answer.json()["total"] == 3
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            break
    assert sorted(found) == sorted(keys)
    story = (await program.get(f"/videos/{keys[0]}")).json()
    assert story["brief"]["title"]
    assert {stage["stage"]: stage["state"] for stage in story["stages"]}["script"] == "done"
    assert story["timeline"][0]["kind"] == "brief"
    assert "did you mean state" in detail(await program.get("/videos", q="stat:failed"), 422)
    assert "There is no video nothing" in detail(await program.get("/videos/nothing"), 404)


async def test_the_calendar_is_read_in_pages(world: DeskWorld) -> None:
    program = Program(world, "viewer")
    keys = await world.waiting(5, publish_at=datetime(2026, 12, 24, 18, tzinfo=UTC))
    found: list[str] = []
    page: dict[str, Any] = {"next_cursor": None}
    for length in (2, 2, 1):
        more = {"cursor": page["next_cursor"]} if page["next_cursor"] else {}
        page = (await program.get("/calendar", start="2026-12-24", until="2026-12-25", limit=2, **more)).json()
        assert (len(page["entries"]), page["complete"]) == (length, True)
        found += [entry["key"] for entry in page["entries"]]
    assert (sorted(found), page["next_cursor"]) == (sorted(keys), None)
    assert detail(await program.get("/calendar", cursor="tomorrow"), 422)


async def test_the_calendar_and_providers_can_be_read(world: DeskWorld) -> None:
    program = Program(world, "viewer")
    await world.waiting(1, publish_at=datetime(2026, 12, 24, 18, tzinfo=UTC))
    found = (await program.get("/calendar", start="2026-12-24", until="2026-12-25")).json()["entries"]
    assert len(found) == 1
    assert len(found[0]["outings"]) == 3
    assert (await program.get("/pools")).json()["pools"]
    assert (await program.get("/breakers")).status_code == 200
    assert (await program.get("/me")).json() == {"name": "viewer-program", "role": "viewer"}
    assert "1 to 62 days" in detail(await program.get("/calendar", start="2026-12-24", until="2026-12-24"), 422)


# --- decisions


async def test_a_decision_is_made_seen_and_undone(world: DeskWorld) -> None:
    program = Program(world, "reviewer")
    [key] = await world.waiting()
    look = (await program.get(f"/videos/{key}/review")).json()
    assert look["content"] == world.content(key)
    assert [card["key"] for card in (await program.get("/review")).json()["videos"]] == [key]
    made = await program.post(f"/videos/{key}/decision", {"answer": "approve", "content": look["content"], "platforms": ["tiktok"]})
    assert made.json()["state"] == "pending"
    assert made.json()["platforms"] == ["tiktok"]
    again = await program.post(f"/videos/{key}/decision", {"answer": "reject", "reason": "too late"})
    assert "reviewer-program was first" in detail(again, 409)
    number = made.json()["id"]
    assert (await program.post(f"/decisions/{number}/undo")).json()["state"] == "undone"
    assert (await program.get(f"/decisions/{number}")).json()["outcome"] == "undone by reviewer-program"
    held = await program.post(f"/videos/{key}/decision", {"answer": "hold", "reason": "ask legal"})
    assert held.status_code == 200
    await program.post(f"/decisions/{held.json()['id']}/undo")
    assert "There is no decision" in detail(await program.get("/decisions/99"), 404)


async def test_a_hold_is_taken_back(world: DeskWorld) -> None:
    program = Program(world, "reviewer")
    [key] = await world.waiting()
    world.desk.decisions.hold(key, reviewer="ann", via="cli")
    assert [card["held_by"] for card in (await program.get("/review", state="held")).json()["videos"]] == ["ann"]
    assert (await program.post(f"/videos/{key}/release")).json()["held_by"] is None
    assert "not on hold" in detail(await program.post(f"/videos/{key}/release"), 422)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"answer": "approve"}, "needs `content`"),
        ({"answer": "approve", "content": ""}, "content"),
        ({"answer": "approve", "content": "0" * 64}, "not what was looked at"),
        ({"answer": "reject"}, "needs a reason"),
        ({"answer": "reject", "reason": "   "}, "needs a reason"),
        ({"answer": "hold", "platforms": ["tiktok"]}, "for approvals only"),
        ({"answer": "approve", "content": "0" * 64, "platforms": []}, "platforms"),
        ({"answer": "maybe"}, "answer"),
        ({"answer": "hold", "reason": "a\x00b"}, "U+0000"),
        ({"answer": "hold", "reason": "x" * 2_001}, "reason"),
        ({"answer": "hold", "more": 1}, "more"),
    ],
)
async def test_an_answer_that_is_none_is_refused_in_words(world: DeskWorld, body: dict[str, Any], said: str) -> None:
    program = Program(world, "reviewer")
    [key] = await world.waiting()
    assert said in detail(await program.post(f"/videos/{key}/decision", body), 422)
    assert world.world.rows("SELECT 1 FROM phantoms.pending_decisions") == []


# --- what operators do


async def test_a_dead_letter_is_discarded_and_replayed_with_its_line_in_the_audit_log(world: DeskWorld) -> None:
    program = Program(world, "operator")
    keys = world.world.add(2)
    await fail(world.world, keys, "script")
    listed = (await program.get("/dead-letters", limit=1)).json()
    assert (listed["total"], len(listed["letters"])) == (2, 1)
    older = (await program.get("/dead-letters", cursor=listed["next_cursor"])).json()
    assert older["next_cursor"] is None
    number = older["letters"][0]["id"]
    assert (await program.get("/dead-letters", stage="post")).json()["letters"] == []
    gone = await program.post(f"/dead-letters/{number}/discard", {"reason": "no longer true"})
    assert gone.json()["letter"]["closed_reason"] == "no longer true"
    assert gone.json()["stage_state"] == "discarded"
    back = await program.post(f"/dead-letters/{number}/replay")
    assert (back.json()["letter"]["state"], back.json()["stage_state"]) == ("replayed", "ready")
    assert detail(await program.post(f"/dead-letters/{number}/replay"), 422)
    deeds = world.world.rows(
        "SELECT action, via, after->>'letter' AS letter FROM phantoms.audit_log WHERE subject = :key", key=keys[0]
    )
    assert [(deed["action"], deed["via"]) for deed in deeds] == [("discard", "api"), ("replay", "api")]
    assert {deed["letter"] for deed in deeds} == {str(number)}
    assert "no dead letter 999" in detail(await program.get("/dead-letters/999"), 404)


async def test_a_bulk_action_is_started_read_and_stopped(world: DeskWorld) -> None:
    program = Program(world, "operator")
    keys = await world.waiting(3)
    made = await program.post("/bulk-actions", {"action": "priority", "priority": 1, "keys": keys[:2]})
    assert made.json()["steps"]["pending"] == 2
    number = made.json()["id"]
    assert world.desk.bulk.advance() == 2
    steps = (await program.get(f"/bulk-actions/{number}/steps", state="done", limit=1)).json()
    assert (len(steps["steps"]), steps["next_cursor"]) == (1, 1)
    found = await program.post("/bulk-actions", {"action": "hold", "q": "stage:approval", "reason": "wait"})
    assert found.json()["steps"]["pending"] == 3
    assert (await program.post(f"/bulk-actions/{found.json()['id']}/stop")).json()["state"] == "stopped"
    assert (await program.post(f"/bulk-actions/{found.json()['id']}/go-on")).json()["state"] == "running"
    assert len((await program.get("/bulk-actions")).json()["actions"]) == 2
    for wrong in ({"action": "move", "keys": keys}, {"action": "hold"}, {"action": "hold", "keys": keys, "q": ""}):
        assert detail(await program.post("/bulk-actions", wrong), 422)
    assert "There is no video" in detail(await program.post("/bulk-actions", {"action": "hold", "keys": ["nothing"]}), 404)


async def test_a_bulk_action_is_begun_once_however_often_the_request_is_sent(world: DeskWorld) -> None:
    await world.waiting(2)
    program = Program(world, "operator")
    body, mark = {"action": "hold", "q": "stage:approval", "reason": "wait"}, {"Idempotency-Key": "hold-1"}
    first = await program.post("/bulk-actions", body, **mark)
    assert (first.status_code, first.json()["steps"]["pending"]) == (201, 2), first.text
    await world.waiting(1)  # found by the search, had it been searched again
    again = await program.post("/bulk-actions", body, **mark)
    assert (again.status_code, again.json()) == (201, first.json())
    assert "new key" in detail(await program.post("/bulk-actions", {**body, "reason": "other"}, **mark), 422)
    assert "new key" in detail(await program.post("/briefs", {"briefs": [{"title": "Snow"}]}, **mark), 422)
    assert len(world.world.rows("SELECT 1 FROM phantoms.bulk_actions")) == 1
    assert len(world.world.rows("SELECT 1 FROM phantoms.audit_log WHERE action = 'bulk hold'")) == 1
    # What was refused is not remembered.
    wrong = {"action": "hold", "keys": ["nothing"]}
    assert "There is no video" in detail(await program.post("/bulk-actions", wrong, **{"Idempotency-Key": "k"}), 404)
    without = [await program.post("/bulk-actions", body) for _ in range(2)]
    assert len({answer.json()["id"] for answer in without}) == 2


async def test_requests_for_a_bulk_action_at_the_same_moment_begin_one(world: DeskWorld) -> None:
    keys = await world.waiting(3)
    program = Program(world, "operator")
    body = {"action": "priority", "priority": 1, "keys": keys}
    found = await asyncio.gather(*(program.post("/bulk-actions", body, **{"Idempotency-Key": "same"}) for _ in range(4)))
    assert {answer.status_code for answer in found} == {201}
    assert [answer.json() for answer in found] == [found[0].json()] * 4
    assert len(world.world.rows("SELECT 1 FROM phantoms.bulk_items")) == 3


async def test_a_breaker_is_tripped_and_reset_with_a_reason(world: DeskWorld) -> None:
    program = Program(world, "operator")
    body = {"breaker": "tiktok", "reason": "they asked us", "seconds": 600}
    assert (await program.post("/breakers/trip", body)).json()["state"] == "open"
    [found] = [one for one in (await program.get("/breakers")).json()["breakers"] if one["name"] == "tiktok"]
    assert (found["state"], found["manual"]) == ("open", True)
    assert (await program.post("/breakers/reset", {"breaker": "tiktok", "reason": "lifted"})).json()["state"] == "closed"
    assert "no breaker 'friendster'" in detail(await program.post("/breakers/trip", {**body, "breaker": "friendster"}), 404)
    for seconds in (0, -1, 1e300, "600"):
        assert detail(await program.post("/breakers/trip", {**body, "seconds": seconds}), 422)
    deeds = (await program.get("/audit", subject="breaker tiktok")).json()["deeds"]
    assert [(deed["action"], deed["address"]) for deed in deeds] == [("reset breaker", "10.0.0.9"), ("trip breaker", "10.0.0.9")]


async def test_a_video_is_moved_after_its_odd_time_was_accepted(world: DeskWorld) -> None:
    program = Program(world, "reviewer")
    [key] = await world.waiting(1, publish_at=datetime(2026, 12, 24, 18, tzinfo=UTC))
    past = {"publish_at": "2020-01-01T00:00:00+00:00"}
    odd = await program.post(f"/calendar/{key}/move", past)
    assert "accept_warnings" in detail(odd, 409)
    assert odd.json()["errors"]
    stale = {**past, "accept_warnings": True, "expected": "2026-12-25T18:00:00+00:00"}
    assert "in the meantime" in detail(await program.post(f"/calendar/{key}/move", stale), 409)
    moved = await program.post(f"/calendar/{key}/move", {**stale, "expected": "2026-12-24T19:00:00+01:00"})
    assert moved.json()["publish_at"] == "2020-01-01T00:00:00Z"
    assert (await program.post(f"/calendar/{key}/move", {"publish_at": None})).json()["publish_at"] is None
    for wrong in ("2026-12-24T18:00", "tomorrow", 1798131600, "99999-01-01T00:00:00Z", "1850-01-01T00:00:00Z"):
        assert detail(await program.post(f"/calendar/{key}/move", {"publish_at": wrong}), 422)


async def test_one_post_of_a_video_is_moved_and_is_an_entry_of_its_own(world: DeskWorld) -> None:
    program = Program(world, "reviewer")
    [key] = world.world.add(1, platforms=(Platform("youtube"), Platform("tiktok")))
    first, later = datetime(2031, 5, 4, 12, tzinfo=UTC), datetime(2031, 5, 6, 13, tzinfo=UTC)
    BookingChanges(world.world.engine).move(key, first, Actor("ann", "cli"))
    body = {"publish_at": later.isoformat(), "platforms": ["tiktok"], "expected": first.isoformat(), "accept_warnings": True}
    moved = await program.post(f"/calendar/{key}/move", body)
    assert (moved.json()["at"], moved.json()["publish_at"]) == ("2031-05-04T12:00:00Z", None)
    assert "in the meantime" in detail(await program.post(f"/calendar/{key}/move", body), 409)
    assert detail(await program.post(f"/calendar/{key}/move", {"publish_at": None, "platforms": ["tiktok"]}), 422)
    assert detail(await program.post(f"/calendar/{key}/move", {**body, "platforms": ["bluesky"]}), 422)
    query = {"start": "2031-05-01", "until": "2031-05-31"}
    listed = (await program.get("/calendar", **query)).json()
    assert [(one["at"], [post["platform"] for post in one["outings"]]) for one in listed["entries"]] == [
        ("2031-05-04T12:00:00Z", ["youtube"]),
        ("2031-05-06T13:00:00Z", ["tiktok"]),
    ]
    [one] = (await program.get("/calendar", **query, limit=1)).json()["entries"]
    assert one["outings"][0]["platform"] == "youtube"


# --- who asks, and what is sent


async def test_a_token_that_is_not_known_is_refused_before_the_body_is_read(world: DeskWorld) -> None:
    client = world.browser().client
    for headers in ({}, {"Authorization": "Bearer nothing"}, {"Authorization": "Basic a2ltOmtpbQ=="}):
        answer = await client.post("/api/v1/briefs", content=b"{not json", headers={"Content-Type": "application/json", **headers})
        assert detail(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_session_needs_its_token_for_every_change_and_none_to_look(world: DeskWorld) -> None:
    browser = await world.logged_in("kim", "operator")
    assert (await browser.client.get("/api/v1/me")).json() == {"name": "kim", "role": "operator"}
    body = {"briefs": [{"title": "Sand"}]}
    assert detail(await browser.client.post("/api/v1/briefs", json=body), 403)
    answer = await browser.client.post("/api/v1/briefs", json=body, headers={"X-CSRF-Token": browser.csrf})
    assert answer.status_code == 201
    elsewhere = {"X-CSRF-Token": browser.csrf, "Origin": "https://evil.example"}
    assert detail(await browser.client.post("/api/v1/briefs", json=body, headers=elsewhere), 403)


async def test_bad_bodies_and_parameters_are_problems_never_errors_of_ours(world: DeskWorld) -> None:
    program = Program(world, "operator")
    send = program.client.post
    json_type = {"Content-Type": "application/json"}
    deep = b'{"briefs":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for content in (
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        deep,
        b'{"briefs":[{"title":"\\ud800"}]}',
        b'{"\\ud800":1,"briefs":[]}',
    ):
        answer = await send("/api/v1/briefs", content=content, headers=json_type)
        assert answer.status_code in (400, 422), content[:40]
        assert answer.headers["content-type"] == "application/problem+json"
    assert detail(await send("/api/v1/briefs", content=b"title=x", headers={"Content-Type": "text/plain"}), 422)
    for path in ("/videos?nothing=1", "/videos?limit=0", "/videos?limit=9999999999999999999999", "/videos/UP%00", "/decisions/0"):
        assert detail(await program.get(path), 422)
    assert detail(await program.get(f"/decisions/{2**70}"), 422)
    assert detail(await program.get("/audit?who=%00"), 422)
    assert detail(await program.get("/nothing"), 404)
    assert detail(await program.client.delete("/api/v1/me"), 405)
    wrong_host = await program.client.get("/api/v1/me", headers={"Host": "evil.example"})
    assert "PHANTOMS_DESK_URL" in detail(wrong_host, 400)
    too_large = await send("/api/v1/briefs", headers={**json_type, "Content-Length": "99999999"}, content=b"{}")
    assert detail(too_large, 413)


async def test_texts_are_edited_by_the_person_who_saw_them_and_the_second_editor_is_told_so(world: DeskWorld) -> None:
    [key] = await world.waiting()
    program = Program(world, "reviewer")
    before = (await program.get(f"/videos/{key}/texts")).json()
    assert {"place": "caption", "text": "About the sea."} in before["texts"]
    body = {"content": before["content"], "caption": "Deeper.", "hashtags": ["deep", "sea"]}
    edited = (await program.post(f"/videos/{key}/texts", body)).json()
    assert edited["remakes"] is None
    assert {"place": "caption", "old": "About the sea.", "new": "Deeper."} in edited["changed"]
    assert "changed its texts meanwhile" in detail(await program.post(f"/videos/{key}/texts", {**body, "caption": "Deepest."}), 409)
    now = (await program.get(f"/videos/{key}/texts")).json()
    spoken = {"content": now["content"], "scenes": [{"number": 1, "narration": "Nobody knows how deep."}]}
    assert (await program.post(f"/videos/{key}/texts", spoken)).json()["remakes"] == "voiceover"
    assert detail(await program.post(f"/videos/{key}/texts", {"content": now["content"]}), 422)
    assert detail(await program.post("/videos/nobody/texts", body), 404)
    assert detail(await Program(world, "viewer").post(f"/videos/{key}/texts", body), 403)


async def test_issues_are_listed_found_and_acknowledged_until_the_next_letter(world: DeskWorld) -> None:
    failed = world.world.add(2)
    await fail(world.world, failed[:1], "script")
    program = Program(world, "operator")
    [one] = (await program.get("/issues", q="script")).json()["issues"]
    assert (one["state"], one["open"], one["total"]) == ("open", 1, 1)
    assert (await program.get("/issues", q="glacier")).json() == {"issues": [], "total": 0}
    shown = (await program.get(f"/issues/{one['cause']}")).json()
    assert [(letter["key"], letter["verdict"]) for letter in shown["letters"]] == [(failed[0], "safe")]
    said = await program.post(f"/issues/{one['cause']}/say", {"state": "acknowledged", "seen": one["newest"], "note": "we know"})
    assert (said.json()["state"], said.json()["note"]) == ("acknowledged", "we know")
    assert (await program.get("/issues")).json()["total"] == 0
    await fail(world.world, failed[1:], "script")
    assert (await program.get(f"/issues/{one['cause']}")).json()["issue"]["came_back"] is True
    assert detail(await program.get("/issues/0123456789abcdef"), 404)
    viewer = Program(world, "viewer")
    assert detail(await viewer.post(f"/issues/{one['cause']}/say", {"state": "open", "seen": 1}), 403)


async def test_the_document_has_the_api_and_nothing_else_and_every_problem_of_it(world: DeskWorld) -> None:
    program = Program(world, "viewer")
    document = (await program.get("/openapi.json")).json()
    assert document == json.loads(json.dumps(made(world.app)))
    assert all(path.startswith("/api/v1/") for path in document["paths"])
    assert "/api/v1/openapi.json" not in document["paths"]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert {"401", "403", "422", "503"} <= set(operation["responses"]), path
    assert "HTTPValidationError" not in document["components"]["schemas"]


async def test_pools_and_breakers_say_so_while_redis_is_away_and_the_rest_answers(database_url: str, tmp_path: Path) -> None:
    async with open_desk(database_url, "redis://127.0.0.1:1/0", tmp_path) as world:
        program = Program(world, "operator")
        body = {"breaker": "tiktok", "reason": "they asked us"}
        for answer in (
            await program.get("/pools"),
            await program.get("/breakers"),
            await program.post("/breakers/trip", body),
            await program.post("/breakers/reset", body),
        ):
            assert "Redis" in detail(answer, 503)
            assert answer.headers["retry-after"] == "5"
        assert (await program.get("/videos")).status_code == 200
