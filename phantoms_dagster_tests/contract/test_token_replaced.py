"""A token that the platform refuses is replaced once, and the request is sent again, wherever in a post that happens."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from pathlib import Path

import httpx
import pytest
from aiohttp.test_utils import TestServer

from phantoms_dagster.domain.errors import Disconnected, Transient
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.platforms.authorised import authorised
from phantoms_dagster.platforms.instagram.api import Graph
from phantoms_dagster.platforms.instagram.identity import InstagramIdentity
from phantoms_dagster.platforms.tiktok.identity import TikTokIdentity
from phantoms_dagster.platforms.youtube.publisher import YouTubePublisher
from phantoms_dagster.production.publication import publish
from phantoms_dagster.sandbox.core import Sandbox, application
from phantoms_dagster_tests.contract import test_instagram
from phantoms_dagster_tests.contract.publishing_kit import FakeJournal
from phantoms_dagster_tests.contract.test_youtube import make_job, world

YOUTUBE = Platform("youtube")


class Mortal:
    """The owner revokes the account's first token after it was used `lives` times. Each renewal gives another token."""

    def __init__(self, sandbox: Sandbox, platform: str, lives: int) -> None:
        self.sandbox = sandbox
        self.platform = platform
        self.lives = lives
        self.current = "sandbox-main"
        self.renewals = 0

    async def token(self, platform: Platform, account: str) -> str:
        if self.lives == 0:
            self.sandbox.config[f"{self.platform}.revoked"] = ["sandbox-main"]
        self.lives -= 1
        return self.current

    async def renewed(self, platform: Platform, account: str, refused: str) -> str | None:
        assert refused == self.current
        self.renewals += 1
        self.current = f"sandbox-main~{self.renewals + 1}"
        return self.current


@pytest.mark.parametrize("lives", range(8))
async def test_a_youtube_post_whose_token_dies_at_any_request_is_published_once(lives: int, tmp_path: Path) -> None:
    async with world() as w:
        tokens = Mortal(w.sandbox, "youtube", lives)
        publisher = YouTubePublisher(client=w.client, base_url=w.base_url, tokens=tokens, clock=w.clock, sandbox=True)
        await publish(publisher, make_job(tmp_path), FakeJournal())
        assert [entry["kind"] for entry in w.sandbox.ledger] == ["youtube.video", "post"]
        assert tokens.renewals == (1 if tokens.lives < 0 else 0)


@pytest.mark.parametrize("lives", range(12))
async def test_a_reel_whose_token_dies_at_any_request_is_published_once(lives: int, tmp_path: Path) -> None:
    """At the upload the account counted as not connected, although there was another token."""
    async with test_instagram.standing() as stand:
        tokens = Mortal(stand.sandbox, "instagram", lives)
        job, journal = test_instagram.make_job(tmp_path, account="main"), FakeJournal(clock=stand.clock)
        for _ in range(2):
            with suppress(Transient):  # the upload starts again
                await publish(stand.publisher(tokens=tokens), job, journal)
        assert [entry["kind"] for entry in stand.sandbox.ledger] == ["post"]
        assert tokens.renewals <= 1


@pytest.mark.parametrize("name", ["tiktok", "instagram"])
async def test_a_read_with_a_refused_token_is_repeated_with_the_next_one(name: str) -> None:
    sandbox = Sandbox()
    routes = import_module(f"phantoms_dagster.sandbox.{name}.routes").routes
    async with TestServer(application(sandbox, [routes(sandbox)])) as server, httpx.AsyncClient() as client:
        url, tokens = f"{server.make_url('/')}{name}", Mortal(sandbox, name, 0)
        if name == "tiktok":
            reader: TikTokIdentity | InstagramIdentity = TikTokIdentity(client=client, base_url=url, tokens=tokens)
        else:
            reader = InstagramIdentity(Graph(client=client, base_url=url, version="v26.0", tokens=tokens))
        assert (await reader.read("main")).label.lower() == "main"
    assert tokens.renewals == 1


class Two:
    """Two tokens; `newer` None: only one."""

    def __init__(self, newer: str | None) -> None:
        self.newer = newer

    async def token(self, platform: Platform, account: str) -> str:
        return "first"

    async def renewed(self, platform: Platform, account: str, refused: str) -> str | None:
        return self.newer


async def sent(newer: str | None, *, accepted: str = "", repeatable: bool = True) -> tuple[httpx.Response, list[str]]:
    used: list[str] = []

    async def send(token: str) -> httpx.Response:
        used.append(token)
        return httpx.Response(200 if token == accepted else 401, request=httpx.Request("GET", "https://example.org/"))

    response = await authorised(Two(newer), YOUTUBE, "main", send, lambda r: r.status_code == 401, repeatable=repeatable)
    return response, used


async def test_without_another_token_the_refusal_is_the_answer() -> None:
    response, used = await sent(None)
    assert (response.status_code, used) == (401, ["first"])


async def test_a_body_that_cannot_be_read_twice_is_not_sent_again_but_the_token_is_replaced() -> None:
    with pytest.raises(Transient, match="expired during the upload and was replaced"):
        await sent("second", accepted="second", repeatable=False)


async def test_a_new_token_that_is_refused_too_stops_the_account_without_saying_that_it_must_be_connected_again() -> None:
    with pytest.raises(Disconnected, match="does not accept a new token of account main either"):
        await sent("second")
