"""An account leaves channels.yaml while a post is under way: the post is finished there, or waits for that account's token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from phantoms_dagster.domain.accounts import DISCONNECTED
from phantoms_dagster.domain.claims import StageTask
from phantoms_dagster.domain.errors import NotYet, Permanent, ProviderError
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Tokens
from phantoms_dagster.platforms.youtube.identity import YouTubeIdentity
from phantoms_dagster.platforms.youtube.publisher import YouTubePublisher
from phantoms_dagster.production.accounts import AccountGate, AccountWaits
from phantoms_dagster.production.token_refresh import TokenRefresher
from phantoms_dagster.sandbox.core import Fault
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.accounts import Accounts, PostgresAccounts
from phantoms_dagster.wiring.account_adapters import AccountPublisher
from phantoms_dagster.wiring.endpoints import Endpoints
from phantoms_dagster.wiring.tokens import AccountTokens
from phantoms_dagster_tests.integration.publishing_world import Studio, open_studio
from phantoms_dagster_tests.integration.stage_world import CHANNEL, World, open_world

YOUTUBE = Platform("youtube")
NAMED = CHANNEL.model_copy(update={"accounts": {YOUTUBE: "ocean"}, "tokens": {YOUTUBE: "env:OCEAN_TOKEN"}})
REMOVED = CHANNEL.model_copy(update={"accounts": {Platform("tiktok"): "reef"}, "tokens": {}})


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
async def studio(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Studio]:
    monkeypatch.setenv("OCEAN_TOKEN", "sandbox-ocean")
    async with open_studio(world, tmp_path) as opened:
        yield opened


def tokens_of(studio: Studio) -> Tokens:
    """Tokens as workers find them: in the place that the table of accounts keeps."""
    settings = Settings(paths={"home": studio.folder}, platforms={"youtube": {"base_url": studio.base_url}})
    sources = PostgresAccounts(studio.world.async_engine).token_sources
    return AccountTokens(Endpoints(settings, lambda: ["youtube"]), sources, _no_refresher)


def _no_refresher() -> TokenRefresher:
    raise AssertionError("no account of these tests is connected")


def real_publisher(studio: Studio) -> AccountPublisher:
    """YouTube as with real tokens, behind the gate of its accounts."""
    tokens = tokens_of(studio)
    publisher = YouTubePublisher(client=studio.client, base_url=studio.base_url, tokens=tokens, clock=studio.clock, sandbox=False)
    gate = AccountGate(
        store=PostgresAccounts(studio.world.async_engine),
        tokens=tokens,
        readers={YOUTUBE: YouTubeIdentity(client=studio.client, base_url=studio.base_url, tokens=tokens, clock=studio.clock)},
        sandboxed=lambda _: False,
    )
    return AccountPublisher(publisher, gate)


async def post(studio: Studio, key: str, publisher: object) -> None:
    store, claim = await studio.claim(key)
    await studio.publish(publisher)(StageTask(claim, await store.attempt(claim)))


async def in_doubt(studio: Studio) -> str:
    """A video whose post may be out: the answer to its last byte was lost. Then its account leaves channels.yaml."""
    [key] = await studio.ready_to_post(channel=NAMED)
    studio.sandbox.faults.append(Fault("youtube.upload", kind="drop_after"))
    with pytest.raises((ProviderError, NotYet)):
        await post(studio, key, real_publisher(studio))
    studio.sandbox.faults.clear()
    [row] = studio.world.rows("SELECT account, state FROM phantoms.posts")
    assert (row["account"], row["state"] in ("intent", "failed")) == ("ocean", False)
    studio.world.catalogue.put_channels([REMOVED])
    return key


async def test_a_post_in_doubt_is_finished_on_its_account_after_that_left_the_channel(studio: Studio) -> None:
    key = await in_doubt(studio)
    await post(studio, key, real_publisher(studio))
    assert [entry["account"] for entry in studio.posts()] == ["ocean"]
    assert [tuple(r.values()) for r in studio.world.rows("SELECT account, state FROM phantoms.posts")] == [("ocean", "confirmed")]


async def test_without_its_token_the_post_waits_and_one_alert_names_the_account_and_what_to_do(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await in_doubt(studio)
    monkeypatch.delenv("OCEAN_TOKEN")
    for _ in range(2):
        with pytest.raises(
            AccountWaits, match=r"YouTube account ocean is not connected: the variable OCEAN_TOKEN .* put the account"
        ):
            await post(studio, key, real_publisher(studio))
    assert [(a.name, a.state) for a in Accounts(studio.world.engine).waiting()] == [("ocean", DISCONNECTED)]
    monkeypatch.setenv("OCEAN_TOKEN", "sandbox-ocean")
    await post(studio, key, real_publisher(studio))
    assert len(studio.posts()) == 1


async def test_without_any_token_of_the_platform_the_post_waits_for_that_of_its_account(studio: Studio) -> None:
    key = await in_doubt(studio)
    with pytest.raises(NotYet, match="give the YouTube account ocean its token again"):
        await post(studio, key, studio.youtube(sandbox=True))
    assert len(studio.posts()) <= 1
    renamed = CHANNEL.model_copy(update={"accounts": {YOUTUBE: "lake"}})
    studio.world.catalogue.put_channels([renamed])
    with pytest.raises(NotYet, match="give the YouTube account ocean its token again"):
        await post(studio, key, studio.youtube(sandbox=True))


async def test_a_post_of_which_nothing_was_sent_asks_for_an_account(studio: Studio) -> None:
    [key] = await studio.ready_to_post(channel=NAMED)
    studio.world.catalogue.put_channels([REMOVED])
    with pytest.raises(Permanent) as refused:
        await post(studio, key, real_publisher(studio))
    assert refused.value.code == "no_account"
    assert studio.sandbox.calls == {}
