"""What every route of the desk must do, on pages and in the API, including routes that are added later."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from phantoms_dagster.desk.access import ROLES, WITHOUT_VISITOR, Role
from phantoms_dagster.desk.api.routes import parameters
from phantoms_dagster.desk.attempts import PER_ADDRESS
from phantoms_dagster_tests.integration.desk_world import TESTER, Browser, DeskWorld, open_desk

UNSAFE = sorted(path for method, path in ROLES if method != "GET")
# A stream of events would not end.
SAFE = sorted(path for method, path in ROLES if method == "GET" and path != "/events")
NOT_OPEN = [one for one in sorted(ROLES) if ROLES[one] > Role.PUBLIC and one[1] != "/events"]
EXAMPLES = {"key": "some-video", "number": "1", "digest": "0", "name": "desk.css", "provider": "tiktok"}
HOSTILE = ("%00", "9" * 23, "-1", "..%2F..%2Fetc%2Fpasswd", "x" * 3000, "%ED%A0%80")
FIELDS = (
    "answer",
    "content",
    "note",
    "at",
    "scene",
    "action",
    "priority",
    "reason",
    "zone",
    "was",
    "seconds",
    "breaker",
    "why",
    "url",
    "event",
    "hours",
    "endpoint",
    "guest",
)


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path) as opened:
        opened.add_user("somebody", "operator")
        yield opened


def address(path: str, **values: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: {**EXAMPLES, **values}.get(found[1], "1"), path)


def changes(world: DeskWorld) -> list[int]:
    """How much is in the tables that people change."""
    of_people = ("audit_log", "videos", "pending_decisions", "holds", "bulk_actions", "guest_links")
    tables = (*of_people, "api_answers", "webhook_endpoints")
    return [world.world.rows(f"SELECT count(*) AS n FROM phantoms.{table}")[0]["n"] for table in tables]


async def test_nothing_is_changed_for_a_session_without_the_token_of_its_forms_or_from_another_site(world: DeskWorld) -> None:
    browser = await world.logged_in("kim", "operator")
    other = await world.logged_in("lee", "operator")
    before, wrong = changes(world), []
    good = {"X-CSRF-Token": browser.csrf}
    # A session says nothing at an address for programs: their signatures do (`test_provider_events.py`).
    for path in [one for one in UNSAFE if one not in WITHOUT_VISITOR]:
        for headers in (
            {},
            {"X-CSRF-Token": other.csrf},
            {"X-CSRF-Token": browser.csrf[:-1]},
            {**good, "Origin": "https://evil.example"},
            {**good, "Origin": "null"},
            {**good, "Sec-Fetch-Site": "cross-site"},
            {**good, "Sec-Fetch-Site": "same-site"},
        ):
            for content in ({"data": {"key": "some-video"}}, {"json": {"reason": "none"}}):
                answer = await browser.client.post(address(path), headers=headers, **content)  # type: ignore[arg-type]
                if answer.status_code != 403:
                    wrong.append((path, headers, answer.status_code))
    assert wrong == []
    assert changes(world) == before
    assert (await browser.get("/review")).status_code == 200  # it logged no one out


async def test_a_token_may_do_only_what_its_role_allows(world: DeskWorld) -> None:
    client = world.browser(address="10.0.0.7").client
    for role in (Role.VIEWER, Role.REVIEWER, Role.OPERATOR):
        world.desk.users.add_token(f"t{role}", role.name.lower(), f"phantoms_t{role}", actor=TESTER)  # type: ignore[arg-type]
    wrong = []
    for method, path in NOT_OPEN:
        for role in (Role.VIEWER, Role.REVIEWER, Role.OPERATOR):
            answer = await client.request(method, address(path), headers={"Authorization": f"Bearer phantoms_t{role}"})
            refused = answer.status_code == 403 and f"yours is {role.name.lower()}" in answer.text
            if refused != (role < ROLES[method, path]) or answer.status_code == 401:
                wrong.append((method, path, role.name, answer.status_code))
        unknown = 401 if path.startswith("/api/") else 403
        for given in ("Bearer phantoms_t9", "Bearer", "Basic a2ltOmtpbQ==", "Bearer phantoms_t3 phantoms_t3", "Token phantoms_t3"):
            answer = await client.request(method, address(path), headers={"Authorization": given})
            if answer.status_code != unknown:
                wrong.append((method, path, given, answer.status_code))
        anybody = await client.request(method, address(path))
        if anybody.status_code != (401 if path.startswith("/api/") else 303):
            wrong.append((method, path, "nobody", anybody.status_code))
    assert wrong == []


async def test_every_answer_forbids_frames_scripts_of_others_and_guessing(world: DeskWorld) -> None:
    browser = await world.logged_in("kim", "operator")
    for path in SAFE:
        for client in (browser.client, world.browser(address="10.0.0.7").client):
            for answer in (await client.get(address(path)), await client.put(address(path))):
                policy = answer.headers["content-security-policy"]
                assert "frame-ancestors 'none'" in policy, path
                assert "unsafe" not in policy, path
                assert answer.headers["x-frame-options"] == "DENY", path
                assert answer.headers["x-content-type-options"] == "nosniff", path
                assert "access-control-allow-origin" not in answer.headers, path
                assert "cache-control" in answer.headers, path


async def test_no_address_whatever_its_parts_is_an_error_of_ours(world: DeskWorld) -> None:
    await world.waiting()
    browser = await world.logged_in("kim", "operator")
    wrong = []
    asked = {route.path: list(parameters(route.dependant)) for route in world.app.routes if isinstance(route, APIRoute)}
    for path in SAFE:
        names = re.findall(r"\{(\w+)\}", path)
        for bad in HOSTILE:
            hostile = [address(path, **{name: bad}) for name in names]
            hostile += [f"{address(path)}?{name}={bad}" for name in (*asked[path], "from")]
            for one in hostile:
                answer = await browser.client.get(one)
                if answer.status_code >= 500:
                    wrong.append((one[:80], answer.status_code))
    assert wrong == []


async def test_no_form_whatever_is_in_it_is_an_error_of_ours(world: DeskWorld) -> None:
    [key] = await world.waiting()
    browser = await world.logged_in("kim", "operator")
    good = {"X-CSRF-Token": browser.csrf}
    known = {"answer": "reject", "content": "0" * 64, "action": "priority", "key": key, "breaker": "tiktok", "when": "at"}
    wrong = []
    for path in UNSAFE:
        if path in ("/login", "/logout"):
            continue
        for bad in ("\x00", "9" * 40, "nan", "x" * 50_000):
            for sent in ({**known, **{name: bad for name in FIELDS if name not in known}}, dict.fromkeys((*FIELDS, *known), bad)):
                for here in (address(path, key=key), address(path, key="%00", number="9" * 30, provider="%00")):
                    for content in ({"data": sent}, {"json": sent}):
                        answer = await browser.client.post(here, headers=good, **content)  # type: ignore[arg-type]
                        if answer.status_code >= 500:
                            wrong.append((here[:80], bad[:10], answer.status_code))
    assert wrong == []


REDIRECTS = (
    "https://evil.example/",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\/evil.example",
    "/\t/evil.example",
    "\t//evil.example",
    "/\r\nLocation: https://evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "http:evil.example",
    "evil.example",
    "@evil.example",
)


async def test_no_form_and_no_address_leads_to_another_site(world: DeskWorld) -> None:
    browser = await world.logged_in("kim")
    for wanted in REDIRECTS:
        await stays(world, browser, wanted)


async def stays(world: DeskWorld, browser: Browser, wanted: str) -> None:
    already = await browser.client.get("/login", params={"next": wanted})
    colours = await browser.post("/theme", {"theme": "dark", "back": wanted})
    fresh = world.browser()
    asked = await fresh.get("/login", params={"next": wanted})
    assert "evil" not in asked.text
    for answer in (already, colours, await fresh.log_in("kim", to=wanted)):
        assert answer.status_code == 303
        assert answer.headers["location"] in ("/", "/%09/evil.example"), wanted
    refused = await browser.client.post("/theme", headers={"Referer": f"https://evil.example/{wanted}"})
    assert "evil" not in refused.text


async def test_a_session_that_is_over_or_whose_cookie_was_altered_is_none(world: DeskWorld) -> None:
    browser = await world.logged_in("kim", "operator")
    cookie = browser.client.cookies["phantoms_desk"]
    value, _, signature = cookie.rpartition(".")
    for altered in (value, f"{value}.", f"{value}.{signature[::-1]}", f"{value}x.{signature}", signature, "", "..", "\xff"):
        thief = world.browser()
        answer = await thief.client.get("/review", headers={b"Cookie": f"phantoms_desk={altered}".encode("latin-1")})
        assert answer.headers["location"].startswith("/login"), altered
    # What is signed for one purpose is worth nothing for another.
    for purpose in ("flash", "csrf", "media"):
        forged = world.desk.keys.seal(purpose, "x")
        answer = await world.browser().client.get("/review", headers={"Cookie": f"phantoms_desk={forged}"})
        assert answer.headers["location"].startswith("/login")
    world.world.write("UPDATE phantoms.desk_sessions SET expires_at = clock_timestamp() - interval '1 second'")
    assert (await browser.get("/review")).headers["location"].startswith("/login")
    assert (await browser.client.get("/api/v1/me")).status_code == 401


async def test_a_role_that_was_taken_away_ends_with_the_next_request(world: DeskWorld) -> None:
    browser = await world.logged_in("kim", "operator")
    assert (await browser.client.get("/pipeline/act", params={"action": "hold", "q": "", "whole": "1"})).status_code == 200
    world.desk.users.set_role("kim", "viewer", actor=TESTER)
    assert (await browser.client.get("/pipeline/act", params={"action": "hold", "whole": "1"})).status_code == 403


async def test_guessing_at_many_names_ends_after_thirty_failures_from_one_address(world: DeskWorld) -> None:
    world.add_user("kim")
    for number in range(PER_ADDRESS):
        answer = await world.browser(address="10.0.0.1").log_in(f"name-{number}", "not the password")
        assert answer.status_code == 401
    assert (await world.browser(address="10.0.0.1").log_in("kim")).status_code == 429
    assert (await world.browser(address="10.0.0.2").log_in("kim")).status_code == 303


async def test_a_method_that_a_route_does_not_have_does_nothing(world: DeskWorld) -> None:
    browser = await world.logged_in("kim", "operator")
    for method, path in sorted(ROLES):
        others = {"GET", "POST"} - {known for known, other in ROLES if other == path}
        for other in (*others, "PUT", "PATCH", "DELETE", "TRACE"):
            answer = await browser.client.request(other, address(path))
            # Somebody loads the address of a form once more: its page is shown.
            expected = 303 if other == "GET" and not path.startswith("/api/") else 405
            assert answer.status_code == expected, (method, other, path)
