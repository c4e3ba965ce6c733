"""Almost nothing works without a session, nothing without the role, nothing from another site, and no link leaves the desk."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from pydantic import SecretStr

from phantoms_dagster.desk.access import ROLES, Role
from phantoms_dagster.desk.app import create_app
from phantoms_dagster.desk.pages import media
from phantoms_dagster.desk.serve import check_exposed
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster_tests.integration.desk_world import PASSWORD, TESTER, DeskWorld, master, open_desk

OPEN = {"/health", "/static/{digest}/{name}", "/login", "/logout", "/media/{name}"}
OPEN |= {"/guest/{secret}", "/calendar/{secret}.ics", "/login/oidc", "/login/oidc/back"}
OPEN |= {"/provider-events/{integration}", "/provider-events/{integration}/{secret}"}
EXAMPLES = {"key": "some-video", "number": "1", "digest": "0", "name": "desk.css"}


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path) as opened:
        yield opened


def address(path: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: EXAMPLES.get(found[1], "1"), path)


def routes(world: DeskWorld) -> list[tuple[str, str]]:
    found = [route for route in world.app.routes if isinstance(route, APIRoute)]
    return [(method, route.path) for route in found for method in (route.methods or set()) - {"HEAD"}]


async def test_every_route_is_in_the_table_of_roles_and_only_those_few_are_public(world: DeskWorld) -> None:
    found = set(routes(world))
    assert found <= set(ROLES)
    assert {path for method, path in found if ROLES[method, path] is Role.PUBLIC} == OPEN


async def test_a_desk_with_an_undeclared_route_does_not_start(world: DeskWorld) -> None:
    class Page:
        @staticmethod
        def register(app: object) -> None:
            app.get("/forgotten")(lambda: None)  # type: ignore[attr-defined]

    with pytest.raises(RuntimeError, match=r"GET /forgotten has no role: add it to ROLES in desk/access.py"):
        create_app(world.desk, [Page])  # type: ignore[list-item]


async def test_without_a_session_every_other_route_asks_to_log_in(world: DeskWorld) -> None:
    world.add_user("ann")
    browser = world.browser()
    await browser.get("/login")
    for method, path in routes(world):
        if path in OPEN:
            continue
        answer = await browser.client.request(method, address(path), data={"_csrf": browser.csrf} if method == "POST" else None)
        if path.startswith("/api/"):
            assert answer.status_code == 401, path
        else:
            assert (answer.status_code, answer.headers["location"].split("?")[0]) == (303, "/login"), path


@pytest.mark.parametrize("role", ["viewer", "reviewer"])
async def test_nobody_does_what_their_role_does_not_allow(world: DeskWorld, role: str) -> None:
    browser = await world.logged_in("kim", role)  # type: ignore[arg-type]
    mine = Role[role.upper()]
    refused = [(method, path) for method, path in routes(world) if ROLES[method, path] > mine]
    assert refused or role == "reviewer"
    for method, path in refused:
        answer = await browser.client.request(method, address(path), data={"_csrf": browser.csrf} if method == "POST" else None)
        assert answer.status_code == 403, path
        assert f"yours is {role}" in answer.text


async def test_a_form_without_the_token_or_from_another_site_changes_nothing(world: DeskWorld) -> None:
    [key] = await world.waiting()
    browser = await world.logged_in("kim")
    form = {"answer": "approve", "content": world.content(key)}
    path = f"/review/{key}/decide"
    stolen = await world.logged_in("lee")
    for answer in (
        await browser.client.post(path, data=form),
        await browser.client.post(path, data={**form, "_csrf": "x" * 43}),
        await browser.client.post(path, data={**form, "_csrf": stolen.csrf}),
        await browser.post(path, form, headers={"Origin": "https://evil.example"}),
        await browser.post(path, form, headers={"Sec-Fetch-Site": "cross-site"}),
    ):
        assert answer.status_code == 403
    assert world.world.rows("SELECT 1 FROM phantoms.pending_decisions") == []
    assert (await browser.post(path, form)).status_code == 303


async def test_a_log_in_gets_a_new_session_and_one_that_was_planted_is_worth_nothing(world: DeskWorld) -> None:
    world.add_user("kim")
    browser = world.browser()
    await browser.get("/login")
    planted = browser.client.cookies["phantoms_desk"]
    await browser.log_in("kim")
    assert browser.client.cookies["phantoms_desk"] != planted
    thief = world.browser()
    thief.client.cookies.set("phantoms_desk", planted)
    assert (await thief.get("/review")).headers["location"].startswith("/login")


async def test_log_out_a_new_password_and_removal_end_sessions_on_the_server(world: DeskWorld) -> None:
    for end in (
        lambda name: world.desk.users.set_password(name, "argon", actor=TESTER),
        lambda name: world.desk.users.remove(name, actor=TESTER),
        None,
    ):
        name = f"kim-{id(end)}"
        world.add_user("somebody-else") if not world.desk.users.any() else None
        browser = await world.logged_in(name)
        kept = browser.client.cookies["phantoms_desk"]
        assert (await browser.get("/review")).status_code == 200
        if end is None:
            await browser.post("/logout")
        else:
            end(name)
        other = world.browser()
        other.client.cookies.set("phantoms_desk", kept)
        assert (await other.get("/review")).headers["location"].startswith("/login")
    assert world.world.rows("SELECT 1 FROM phantoms.desk_sessions") == []


async def test_the_cookie_is_out_of_reach_of_scripts_and_of_other_sites(world: DeskWorld) -> None:
    world.add_user("kim")
    browser = world.browser()
    cookie = (await browser.log_in("kim")).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    stored = world.world.rows("SELECT id_sha256 FROM phantoms.desk_sessions")[0]["id_sha256"]
    assert stored not in cookie


@pytest.mark.parametrize("wanted", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
async def test_nobody_is_sent_to_another_site_by_the_log_in(world: DeskWorld, wanted: str) -> None:
    world.add_user("kim")
    answer = await world.browser().log_in("kim", to=wanted)
    assert answer.headers["location"] == "/"


async def test_guessing_ends_after_ten_failures_a_name_whatever_the_address(world: DeskWorld) -> None:
    world.add_user("kim")
    for number in range(10):
        browser = world.browser(address=f"10.0.0.{number}")
        assert (await browser.log_in("kim", "not the password")).status_code == 401
    answer = await world.browser(address="10.0.0.99").log_in("kim")
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert (await world.browser().log_in("nobody", "x")).status_code == 401  # a name that nobody has reads the same


async def test_every_answer_forbids_frames_inline_scripts_and_guessing_of_types(world: DeskWorld) -> None:
    for path in ("/review", "/nothing", "/static/0/desk.css"):
        headers = (await world.browser().get(path)).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"


async def test_a_request_for_another_host_is_refused(world: DeskWorld) -> None:
    for host in ("evil.example", "evil.example:4000", "127.0.0.1.evil.example"):
        answer = await world.browser(host=host).get("/review")
        assert answer.status_code == 400
    assert (await world.browser(host="localhost:4000").get("/review")).status_code == 200


async def test_without_users_the_desk_is_open_to_this_machine_alone_and_says_so(world: DeskWorld) -> None:
    here = await world.browser().get("/review")
    assert here.status_code == 200
    assert "phantoms users add" in here.text
    away = await world.browser(address="10.1.2.3").get("/review")
    assert away.headers["location"].startswith("/login")
    through_a_proxy = await world.browser().get("/review", headers={"X-Forwarded-For": "127.0.0.1"})
    assert through_a_proxy.headers["location"].startswith("/login")
    world.add_user("kim")
    assert (await world.browser().get("/review")).headers["location"].startswith("/login")


async def test_a_desk_for_others_refuses_to_start_without_a_user_and_names_the_command(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    async with open_desk(database_url, redis_url, tmp_path, desk_host="0.0.0.0") as world:
        with pytest.raises(InvalidInput, match="phantoms users add"):
            check_exposed(world.desk)
        world.add_user("kim")
        check_exposed(world.desk)


async def test_an_api_token_has_its_role_and_is_stored_as_a_hash(world: DeskWorld) -> None:
    [key] = await world.waiting()
    world.add_user("kim")
    world.desk.users.add_token("robot", "reviewer", "phantoms_secret", actor=TESTER)
    world.desk.users.add_token("eye", "viewer", "phantoms_looks", actor=TESTER)
    browser = world.browser()
    headers = {"Authorization": "Bearer phantoms_secret"}
    form = {"answer": "approve", "content": world.content(key)}
    looks = await browser.client.post(f"/review/{key}/decide", data=form, headers={"Authorization": "Bearer phantoms_looks"})
    assert looks.status_code == 403
    assert (await browser.client.get("/review", headers={"Authorization": "Bearer phantoms_other"})).status_code == 403
    assert (await browser.client.post(f"/review/{key}/decide", data=form, headers=headers)).status_code == 303
    assert "phantoms_secret" not in str(world.world.rows("SELECT * FROM phantoms.api_tokens"))
    world.desk.users.revoke_token("robot", actor=TESTER)
    assert (await browser.client.get("/review", headers=headers)).status_code == 403


async def test_a_video_needs_an_address_of_this_desk_that_is_not_too_old(world: DeskWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    file = world.keep(b"0123456789")
    path = media.address(world.desk, file)
    world.add_user("kim")
    browser = world.browser()
    assert (await browser.get(path)).content == b"0123456789"
    for wrong in (
        path.replace("size=10", "size=11"),
        path[:-1] + ("a" if path[-1] != "a" else "b"),
        re.sub(r"until=\d+", "until=99999999999", path),
        path.replace(file.sha256, "0" * 64),
        f"/media/..%2F..%2Fetc%2Fpasswd?{path.partition('?')[2]}",
        "/media/desk.key",
    ):
        assert (await browser.get(wrong)).status_code in (403, 404), wrong
    monkeypatch.setattr("phantoms_dagster.desk.pages.media.time.time", lambda: 99_999_999_999.0)
    assert (await browser.get(path)).status_code == 403


async def test_a_static_file_is_one_of_the_list(world: DeskWorld) -> None:
    browser = world.browser()
    assert (await browser.get("/static/0/..%2Faccess.py")).status_code == 404
    assert (await browser.get("/static/0/%2e%2e/access.py")).status_code == 404


async def test_passwords_are_hashed_with_argon2id_and_short_ones_refused(world: DeskWorld) -> None:
    from phantoms_dagster.desk.passwords import hash_password  # noqa: PLC0415

    world.add_user("kim")
    [row] = world.world.rows("SELECT password_hash FROM phantoms.users")
    assert row["password_hash"].startswith("$argon2id$")
    with pytest.raises(InvalidInput, match="10 characters"):
        hash_password("short")
    assert PASSWORD not in row["password_hash"]


async def test_a_short_secret_is_refused(database_url: str, redis_url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="PHANTOMS_DESK_SECRET"):
        async with open_desk(database_url, redis_url, tmp_path, desk_secret=SecretStr("short")):
            pass


async def test_the_key_of_the_desk_is_ours_alone(world: DeskWorld, tmp_path: Path) -> None:
    assert (tmp_path / "desk.key").stat().st_mode & 0o777 == 0o600
    assert master(world.keep(b"x")).video.size == 1
