"""A desk whose stores are away says so, tries again by itself, and has lost nothing when they are back."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from pydantic import SecretStr

from phantoms_dagster.desk.app import create_app
from phantoms_dagster.desk.attempts import PER_NAME, LoginAttempts
from phantoms_dagster.desk.context import Desk
from phantoms_dagster.desk.render import static_files
from phantoms_dagster.settings import Settings
from phantoms_dagster_tests.integration.desk_world import Browser, open_desk


def nobody_listens() -> int:
    """A port without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
def lost(tmp_path: Path) -> Settings:
    url = f"postgresql://phantoms:secret-word@127.0.0.1:{nobody_listens()}/phantoms"
    return Settings(paths={"home": tmp_path}, database={"url": SecretStr(url)}, redis={"url": SecretStr("redis://127.0.0.1:1/0")})


async def test_a_page_without_postgresql_says_so_and_comes_back_by_itself(lost: Settings) -> None:
    import httpx  # noqa: PLC0415

    desk = Desk.of(lost)
    transport = httpx.ASGITransport(create_app(desk), client=("127.0.0.1", 5000), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:4000") as client:
        answer = await Browser(client).get("/review")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert "PostgreSQL does not answer" in answer.text
        assert '<meta http-equiv="refresh" content="5">' in answer.text
        assert "secret-word" not in answer.text
        for path in (
            "/dead-letters",
            "/dead-letters/0123456789abcdef",
            "/performance",
            "/webhooks",
            "/guest-links",
            f"/guest/{'x' * 43}",
        ):
            assert (await Browser(client).get(path)).status_code == 503
        sent = await Browser(client).post("/review/some-video/decide", {"answer": "reject", "note": "the second fact is wrong"})
        assert sent.status_code == 503
        assert "the second fact is wrong" in sent.text  # a browser forgets it
        assert "refresh" not in sent.text  # a form is not sent again by itself
        assert "Nothing was changed" in sent.text
        for path in ("/review/some-video/edit", "/add"):
            assert (await client.get(path)).status_code == 503
        for path in ("/api/v1/videos", "/api/v1/review", "/api/v1/openapi.json"):
            problem = await client.get(path)
            assert (problem.status_code, problem.headers["content-type"]) == (503, "application/problem+json")
            assert problem.headers["retry-after"] == "5"
            assert "PostgreSQL does not answer" in problem.json()["detail"]
        assert (await client.get("/health")).status_code == 200
        assert (await client.get(static_files()["desk.css"].path)).status_code == 200
    desk.close()


async def test_a_log_in_works_without_redis_and_guessing_still_ends(database_url: str, tmp_path: Path) -> None:
    async with open_desk(database_url, "redis://127.0.0.1:1/0", tmp_path) as world:
        assert (await world.logged_in("kim")).csrf
        for _ in range(PER_NAME):
            assert (await world.browser().log_in("kim", "wrong")).status_code == 401
        assert (await world.browser().log_in("kim")).status_code == 429


def test_all_desks_count_failed_log_ins_together(redis_url: str) -> None:
    one, other = LoginAttempts(redis_url), LoginAttempts(redis_url)
    for _ in range(PER_NAME):
        one.failed("Kim ", "10.0.0.1")
    assert other.wait_seconds("kim", "10.9.9.9") > 0
    assert other.wait_seconds("lee", "10.0.0.1") == 0
    other.succeeded("kim", "10.0.0.1")
    assert one.wait_seconds("kim", "10.9.9.9") == 0
    one.close()
    other.close()
