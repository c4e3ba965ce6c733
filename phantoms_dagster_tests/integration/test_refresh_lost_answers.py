"""The refresher, with PostgreSQL, against the sandbox's authorization servers when the answer to a renewal is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from phantoms_dagster.domain.errors import Disconnected, PhantomsError
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import AccountIdentity
from phantoms_dagster.production.token_refresh import TokenRefresher
from phantoms_dagster.sandbox.core import Fault
from phantoms_dagster.store.engine import async_engine, engine
from phantoms_dagster.store.grants import Grants, PostgresGrants
from phantoms_dagster.store.vault import Vault, new_key
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster_tests.contract.test_oauth_sandbox import Server, serving

ROUTES = {"youtube": "google.token", "tiktok": "tiktok.token", "instagram": "instagram.refresh_token"}


@asynccontextmanager
async def connected(name: str, database_url: str) -> AsyncIterator[tuple[Server, TokenRefresher, str]]:
    """The sandbox, the refresher of a connected account, and the account's first access token."""
    key = new_key()
    vault = Vault(lambda: [key], "the test's keys")
    database, commands = async_engine(database_url), engine(database_url)
    async with serving(name) as server:
        grant = await server.connect()
        Grants(commands, vault).connect(Platform(name), "ocean", grant, AccountIdentity("owner", "Ocean"))
        server.sandbox.advance(2 * 86_400)  # Instagram renews no token that is younger than a day
        refresher = TokenRefresher(
            store=PostgresGrants(database, vault), oauth={Platform(name): server.oauth}, clock=SystemClock(), pause=0.0
        )
        try:
            yield server, refresher, grant.access_token
        finally:
            await refresher.finish()
            await database.dispose()
            commands.dispose()


async def lose_the_answer(name: str, server: Server, refresher: TokenRefresher, token: str) -> None:
    server.sandbox.faults.append(Fault(ROUTES[name], kind="drop_after", times=1))
    with pytest.raises(PhantomsError) as lost:
        await refresher.renewed(Platform(name), "ocean", token)
    assert not isinstance(lost.value, Disconnected)  # nothing proves yet that the connection is dead


@pytest.mark.parametrize("name", ["youtube", "instagram"])
async def test_a_platform_whose_old_token_still_works_gives_another_at_the_next_try(name: str, database_url: str) -> None:
    async with connected(name, database_url) as (server, refresher, token):
        server.sandbox.config["instagram.old_token_dies"] = False
        await lose_the_answer(name, server, refresher, token)
        renewed = await refresher.renewed(Platform(name), "ocean", token)
        assert renewed != token
        assert "ocean" in await server.owner(renewed)
        assert await refresher.token(Platform(name), "ocean") == renewed


@pytest.mark.parametrize("name", ["tiktok", "instagram"])
async def test_a_platform_that_has_ended_the_old_token_makes_it_say_reconnect_once(name: str, database_url: str) -> None:
    async with connected(name, database_url) as (server, refresher, token):
        await lose_the_answer(name, server, refresher, token)
        for _ in range(2):
            with pytest.raises(Disconnected, match=f"phantoms accounts connect {name} --name ocean"):
                await refresher.renewed(Platform(name), "ocean", token)
        assert server.sandbox.calls[ROUTES[name]] == (2 if name == "instagram" else 3)  # TikTok's consent took one more
