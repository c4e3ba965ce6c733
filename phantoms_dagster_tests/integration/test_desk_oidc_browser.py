"""The log-in by an OpenID Connect provider as people do it: in a real browser, by the button, with a real provider behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from phantoms_dagster_tests.integration.desk_browsers import MARKS, Served, Window, open_browser, open_served
from phantoms_dagster_tests.oidc_server import Provider, oidc_provider

# One event loop for all tests of the file: they share a browser, whose start costs more than most of them.
pytestmark = [*MARKS, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture
def provider() -> Iterator[Provider]:
    with oidc_provider() as running:
        running.person("u1", preferred_username="kim@example.org", roles=["newsroom"])
        running.person("u2", preferred_username="lee@example.org", roles=["leads"])
        running.person("u3", preferred_username="mia@example.org", roles=["gardeners"])
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def served(database_url: str, redis_url: str, tmp_path: Path, provider: Provider) -> AsyncIterator[Served]:
    settings = {
        "oidc_issuer": provider.url,
        "oidc_client_id": "phantoms-desk",
        "oidc_client_secret": "a secret",
        "oidc_roles": "newsroom=reviewer,leads=operator",
    }
    async with open_served(database_url, redis_url, tmp_path, **settings) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Any]:
    """One browser; each test opens a context of its own, which shares neither cookies nor storage with another."""
    async with open_browser() as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def window(served: Served, provider: Provider, browser: Any) -> AsyncIterator[Window]:
    """A window in which nothing goes wrong, and which goes to no host but the desk and the provider."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    opened = Window(await context.new_page(), served.url, also=[provider.url, "https://cdn.jsdelivr.net/"])
    # The provider's own pages want a style sheet of another site.
    await context.route("https://cdn.jsdelivr.net/**", lambda route: route.fulfill(body="", content_type="text/css"))
    yield opened
    await context.close()
    assert opened.errors == []


async def agree(window: Window, subject: str) -> None:
    """Click the button of the log-in page, and be that person at the provider."""
    await window.page.get_by_role("link", name="Log in with 127.0.0.1").click()
    await window.page.get_by_placeholder("sub").fill(subject)
    await window.page.get_by_role("button", name="Authorize").click()


async def who(window: Window) -> dict[str, Any]:
    """Who the desk thinks it is."""
    answer = await window.page.request.get(f"{window.url}/api/v1/me")
    found: dict[str, Any] = await answer.json()
    return found


async def test_a_person_logs_in_by_the_button_and_out_again_here_and_at_the_provider(
    served: Served, provider: Provider, window: Window
) -> None:
    page = window.page
    await window.open("/audit")
    await window.at("/login")
    await agree(window, "u1")
    await window.at("/audit")
    assert await who(window) == {"name": "kim@example.org", "role": "reviewer"}
    assert await page.get_by_role("link", name="kim@example.org").count() > 0  # the audit log has the log-in
    await page.locator(".me > summary").click()
    assert "reviewer" in await page.locator(".me .who").inner_text()
    await page.get_by_role("button", name="Log out").click()
    # The desk leads on to the provider by itself, and tells it whose session it is.
    await page.get_by_role("heading", name="End Session").wait_for()
    assert page.url.startswith(f"{provider.url}/oauth2/end_session?")
    assert served.world.world.rows("SELECT 1 FROM phantoms.desk_sessions") == []
    await page.get_by_text("Request parameters").click()
    sent = await page.locator("dl").inner_text()
    assert "id_token_hint" in sent
    assert f"{served.url}/login" in sent
    await page.get_by_role("button", name="End session").click()
    await window.at("/login?state=")
    await window.says("You are logged out, here and at 127.0.0.1.")
    # Somebody else at the same screen is not the person before.
    await agree(window, "u2")
    await window.at("/review")
    assert await who(window) == {"name": "lee@example.org", "role": "operator"}


async def test_a_person_without_a_role_is_told_so_and_can_log_in_once_they_have_one(window: Window, provider: Provider) -> None:
    await window.open("/review")
    await agree(window, "u3")
    await window.says("Ask its administrator for one of newsroom, leads in `roles`")
    assert window.errors.pop().endswith("403 (Forbidden)")
    provider.person("u3", preferred_username="mia@example.org", roles=["newsroom"])
    await agree(window, "u3")
    await window.at("/review")
    assert (await who(window))["role"] == "reviewer"


async def test_a_provider_that_ends_no_sessions_is_said_to_have_one_still(window: Window, provider: Provider) -> None:
    provider.metadata = {"end_session_endpoint": None}
    await window.open("/review")
    await agree(window, "u1")
    await window.at("/review")
    await window.log_out()
    await window.at("/login")
    await window.says("Your session at 127.0.0.1 is still open; log out there, too.")


async def test_who_has_a_password_here_is_not_sent_to_the_provider(served: Served, window: Window) -> None:
    served.world.add_user("local", "viewer")
    await window.open("/review")
    await agree(window, "u1")
    await window.at("/review")
    await window.page.context.clear_cookies(name="phantoms_desk")  # the session has run out
    await window.open("/audit")
    await window.log_in("local")
    await window.at("/audit")
    await window.log_out()
    await window.at("/login")
    await window.says("You are logged out.")
    assert "127.0.0.1 is still open" not in await window.page.inner_text("body")
