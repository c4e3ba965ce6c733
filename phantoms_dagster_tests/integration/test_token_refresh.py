"""A stored token is renewed early, once in the whole fleet, and no failure loses one that works."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from aiohttp import web
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from phantoms_dagster.domain.accounts import CONNECTED, DISCONNECTED, EXPIRING, standing
from phantoms_dagster.domain.errors import Disconnected, NotYet, Permanent, StoreAway, Transient
from phantoms_dagster.domain.grants import AppRefused, Grant, StoredGrant
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import AccountIdentity
from phantoms_dagster.platforms.oauth import App
from phantoms_dagster.platforms.tiktok.oauth import TikTokOAuth
from phantoms_dagster.production import token_refresh
from phantoms_dagster.production.token_refresh import TokenRefresher
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.accounts import Accounts
from phantoms_dagster.store.attention import AttentionBoard
from phantoms_dagster.store.engine import async_engine, engine
from phantoms_dagster.store.grants import Grants, PostgresGrants
from phantoms_dagster.store.vault import Vault, new_key
from phantoms_dagster.wiring import Services
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster_tests.integration.stage_world import open_world
from phantoms_dagster_tests.token_server import TokenServer, serving

TIKTOK = Platform("tiktok")
KEY = new_key()
TWO_ACCOUNTS = """
channels:
  facts:
    title: Facts
    brand_voice: calm
    accounts: {tiktok: reef}
    tiktok: {privacy: SELF_ONLY}
  more:
    title: More
    brand_voice: calm
    accounts: {tiktok: {account: shore, token: "env:SHORE"}}
    tiktok: {privacy: SELF_ONLY}
"""
OWNER = AccountIdentity("open-1", "Reef")


@dataclass
class Fleet:
    """A connected account in a database, and any number of processes that use it."""

    database_url: str
    server: TokenServer
    key: str = KEY

    def vault(self) -> Vault:
        return Vault(lambda: [self.key], "the test's keys")

    def connect(self, **grant: Any) -> None:
        given = {"access_token": "act.old", "life_seconds": 86_400, "refresh_token": "rft.old", **grant}
        self.server.alive.add(given["refresh_token"])
        with_engine(self.database_url, lambda e: Grants(e, self.vault()).connect(TIKTOK, "reef", Grant(**given), OWNER))

    def read(self) -> StoredGrant:
        found: StoredGrant = with_engine(self.database_url, lambda e: Grants(e, self.vault()).read(TIKTOK, "reef"))
        return found

    def disconnect(self, generation: int | None = None) -> bool:
        seen = self.read().generation if generation is None else generation
        return bool(with_engine(self.database_url, lambda e: Grants(e, self.vault()).disconnect(TIKTOK, "reef", seen)))

    @asynccontextmanager
    async def process(
        self, pause: float = 60.0, own_wait: float = 90.0, secret: str | None = "app-secret"
    ) -> AsyncIterator[TokenRefresher]:
        database = async_engine(self.database_url)
        async with httpx.AsyncClient() as client:
            app = App(TIKTOK, {"client_id": "app"}.__getitem__, {"client_secret": secret}.get)
            oauth = TikTokOAuth(client=client, app=app, authorize_url="https://example.org/", base_url=self.server.url)
            store = PostgresGrants(database, self.vault())
            refresher = TokenRefresher(store=store, oauth={TIKTOK: oauth}, clock=SystemClock(), pause=pause, own_wait=own_wait)
            try:
                yield refresher
            finally:
                await refresher.finish()
                await database.dispose()

    def write(self, statement: str) -> None:
        with psycopg.connect(self.database_url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(statement)

    def age(self, share: float) -> None:
        """Let that share of the access token's life pass."""
        self.write(
            f"UPDATE phantoms.accounts SET access_issued_at = access_issued_at - {share} * (access_expires_at - access_issued_at),"
            f" access_expires_at = access_expires_at - {share} * (access_expires_at - access_issued_at)"
        )

    @property
    def account(self) -> Any:
        [found] = with_engine(self.database_url, lambda e: Accounts(e).all())
        return found


def with_engine(url: str, work: Callable[[Any], Any]) -> Any:
    database = engine(url)
    try:
        return work(database)
    finally:
        database.dispose()


@pytest.fixture
async def fleet(database_url: str) -> AsyncIterator[Fleet]:
    async with serving() as server:
        fleet = Fleet(database_url, server)
        fleet.connect()
        yield fleet


async def test_a_young_token_is_used_without_a_call(fleet: Fleet) -> None:
    fleet.age(0.79)
    async with fleet.process() as process:
        assert await process.token(TIKTOK, "reef") == "act.old"
    assert fleet.server.calls == []


async def test_a_token_is_renewed_early_and_the_rotated_refresh_token_is_the_next_one_used(fleet: Fleet) -> None:
    fleet.age(0.81)
    async with fleet.process(pause=0.0) as process:
        assert await process.token(TIKTOK, "reef") == "act.token-1"
        fleet.age(0.81)
        assert await process.token(TIKTOK, "reef") == "act.token-2"
    assert [call["refresh_token"] for call in fleet.server.calls] == ["rft.old", "rft.next-1"]


async def test_two_refreshers_at_once_make_one_call_and_both_get_the_new_token(fleet: Fleet) -> None:
    fleet.age(1.0)
    async with fleet.process() as one, fleet.process() as two:
        found = await asyncio.gather(*(each.token(TIKTOK, "reef") for each in (one, two, one, two)))
    assert set(found) == {"act.token-1"}
    assert len(fleet.server.calls) == 1


async def test_a_refused_token_is_replaced_whatever_the_clock_says_and_once_for_all_who_were_refused(fleet: Fleet) -> None:
    async with fleet.process() as one, fleet.process() as two:
        assert await one.renewed(TIKTOK, "reef", "act.old") == "act.token-1"
        assert await two.renewed(TIKTOK, "reef", "act.old") == "act.token-1"
    assert len(fleet.server.calls) == 1


async def test_a_token_that_was_renewed_a_moment_ago_is_not_renewed_again(fleet: Fleet) -> None:
    async with fleet.process() as process:
        newer = await process.renewed(TIKTOK, "reef", "act.old")
        with pytest.raises(NotYet, match="renewed a moment ago"):
            await process.renewed(TIKTOK, "reef", newer)
    assert len(fleet.server.calls) == 1
    assert fleet.account.state == "active"


GARBLED: dict[str, Callable[[], web.Response]] = {
    "500": lambda: web.Response(status=500),
    "empty": lambda: web.Response(text=""),
    "no JSON": lambda: web.Response(text="<html>log in to the hotel's network</html>"),
    "empty object": lambda: web.json_response({}),
    "empty token": lambda: web.json_response({"access_token": "", "expires_in": 5}),
    "token is null": lambda: web.json_response({"access_token": None, "expires_in": 5}),
    "no life": lambda: web.json_response({"access_token": "act.x"}),
    "negative life": lambda: web.json_response({"access_token": "act.x", "expires_in": -5}),
    "empty refresh token": lambda: web.json_response({"access_token": "act.x", "expires_in": 5, "refresh_token": ""}),
    "error with status 200": lambda: web.json_response({"error": "internal_error", "log_id": "1"}),
    "another owner": lambda: web.json_response({"access_token": "act.x", "expires_in": 5, "open_id": "open-2"}),
    "server error with status 400": lambda: web.json_response({"error": "internal_failure"}, status=400),
    "a redirect": lambda: web.Response(status=302, headers={"Location": "https://login.example.org/"}),
    "a proxy's page with status 403": lambda: web.Response(status=403, text="<html>blocked</html>", content_type="text/html"),
    "wrong app": lambda: web.json_response({"error": "invalid_client"}, status=401),
}


@pytest.mark.parametrize("answer", GARBLED.values(), ids=GARBLED)
async def test_a_failed_empty_or_garbled_answer_never_replaces_a_token(fleet: Fleet, answer: Callable[[], web.Response]) -> None:
    fleet.server.rotates = False
    fleet.server.answers.append(answer)
    fleet.age(1.0)
    async with fleet.process(pause=0.0) as process:
        with pytest.raises((Transient, Permanent)):
            await process.token(TIKTOK, "reef")
        assert fleet.account.state == "active"
        assert not fleet.account.dead
        assert await process.token(TIKTOK, "reef") == "act.token-2"
    assert [call["refresh_token"] for call in fleet.server.calls] == ["rft.old", "rft.old"]


@pytest.mark.parametrize("failure", ["500", "wrong app", "server error with status 400"])
async def test_a_failed_early_refresh_leaves_the_token_that_still_works_in_use(fleet: Fleet, failure: str) -> None:
    fleet.server.rotates = False
    fleet.server.answers.append(GARBLED[failure])
    fleet.age(0.9)
    async with fleet.process() as process:
        assert await process.token(TIKTOK, "reef") == "act.old"
        assert await process.token(TIKTOK, "reef") == "act.old"
    assert len(fleet.server.calls) == 1  # the next try is a minute later


@pytest.mark.parametrize("answer", ["no JSON", "a redirect", "a proxy's page with status 403"])
async def test_a_page_that_is_not_the_platforms_own_is_no_refusal(fleet: Fleet, answer: str) -> None:
    """A redirect and a 403 of a proxy counted as refusals, so the account needed a person."""
    fleet.server.answers.append(GARBLED[answer])
    fleet.age(1.0)
    async with fleet.process() as process:
        with pytest.raises(Transient) as caught:
            await process.token(TIKTOK, "reef")
    assert caught.value.code == "malformed"


async def test_a_process_without_the_apps_secret_uses_the_token_while_it_lives_and_then_names_the_variable(fleet: Fleet) -> None:
    """The missing setting stopped posts while the token still worked, and each post failed for good."""
    async with fleet.process(secret=None) as process:
        fleet.age(0.9)
        assert await process.token(TIKTOK, "reef") == "act.old"
        fleet.age(1.0)
        for _ in range(2):
            with pytest.raises((AppRefused, NotYet), match="renewed"):
                await process.token(TIKTOK, "reef")
    assert fleet.server.calls == []
    assert not fleet.account.dead
    async with fleet.process(pause=0.0) as process:
        assert await process.token(TIKTOK, "reef") == "act.token-1"


async def test_a_tiktok_connection_that_ends_with_its_first_renewal_names_the_sandbox_of_the_app(fleet: Fleet) -> None:
    fleet.server.alive.clear()
    fleet.age(1.0)
    async with fleet.process() as process:
        with pytest.raises(Disconnected, match="TikTok may renew no tokens for the sandbox of an app"):
            await process.token(TIKTOK, "reef")


async def test_reconnect_is_said_once_when_the_current_generation_is_refused_and_the_platform_is_not_asked_again(
    fleet: Fleet,
) -> None:
    fleet.server.alive.clear()
    fleet.age(1.0)
    async with fleet.process(pause=0.0) as process:
        for _ in range(3):
            with pytest.raises(Disconnected, match="phantoms accounts connect tiktok --name reef"):
                await process.token(TIKTOK, "reef")
    assert len(fleet.server.calls) == 1
    account = fleet.account
    assert (account.state, account.dead) == (DISCONNECTED, True)
    assert "rft.old" not in account.reason


async def test_reconnect_is_not_said_when_another_process_has_stored_a_newer_generation(fleet: Fleet) -> None:
    fleet.age(1.0)
    fleet.server.hold = asyncio.Event()
    async with fleet.process() as process:
        asked = asyncio.create_task(process.token(TIKTOK, "reef"))
        await fleet.server.came.wait()
        fleet.server.answers.append(lambda: web.json_response({"error": "invalid_grant"}))
        fleet.connect(access_token="act.by-hand", refresh_token="rft.by-hand")
        fleet.server.hold.set()
        assert await asked == "act.by-hand"
    assert fleet.account.state == "active"


async def test_a_caller_that_is_cancelled_does_not_lose_the_rotated_token(fleet: Fleet) -> None:
    fleet.age(1.0)
    fleet.server.hold = asyncio.Event()
    async with fleet.process() as process:
        asked = asyncio.create_task(process.token(TIKTOK, "reef"))
        await fleet.server.came.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        fleet.server.hold.set()
    async with fleet.process() as process:
        assert await process.token(TIKTOK, "reef") == "act.token-1"


PROGRAM = """
import asyncio, sys
from phantoms_dagster_tests.integration.test_token_refresh import Fleet, TIKTOK
from phantoms_dagster_tests.token_server import TokenServer

async def main():
    async with Fleet(sys.argv[1], TokenServer(url=sys.argv[2]), sys.argv[3]).process() as process:
        await process.token(TIKTOK, "reef")

asyncio.run(main())
"""


async def killed_in_the_call(fleet: Fleet) -> None:
    """Kill a process after the platform has rotated the refresh token, before the answer reaches it."""
    fleet.age(1.0)
    fleet.server.hold = asyncio.Event()
    arguments = [sys.executable, "-c", PROGRAM, fleet.database_url, fleet.server.url, fleet.key]
    process = await asyncio.to_thread(subprocess.Popen, arguments, stderr=subprocess.DEVNULL)
    await asyncio.wait_for(fleet.server.came.wait(), 60)
    os.kill(process.pid, signal.SIGKILL)
    await asyncio.to_thread(process.wait)
    fleet.server.hold.set()
    fleet.server.hold = None


async def test_after_a_kill_between_rotation_and_commit_the_old_refresh_token_is_tried_once_more_and_works(fleet: Fleet) -> None:
    await killed_in_the_call(fleet)
    fleet.server.alive.add("rft.old")  # a platform that lets the old token live for a while
    async with fleet.process() as process:
        with pytest.raises(NotYet):  # the dead process may still be at it
            await asyncio.wait_for(process.renewed(TIKTOK, "reef", "act.old"), 30)
        fleet.write("UPDATE phantoms.accounts SET refresh_until = clock_timestamp(), refreshed_at = NULL")  # a minute later
        assert await process.token(TIKTOK, "reef") == "act.token-2"
    assert fleet.account.state == "active"


async def test_after_a_kill_between_rotation_and_commit_a_strict_platform_makes_it_say_reconnect_exactly_once(fleet: Fleet) -> None:
    await killed_in_the_call(fleet)
    fleet.write("UPDATE phantoms.accounts SET refresh_until = clock_timestamp(), refreshed_at = NULL")
    async with fleet.process(pause=0.0) as process:
        for _ in range(3):
            with pytest.raises(Disconnected, match="cut off before its answer was stored"):
                await process.token(TIKTOK, "reef")
    assert len(fleet.server.calls) == 2
    assert fleet.account.dead
    fleet.connect(access_token="act.again", refresh_token="rft.again")
    async with fleet.process() as process:
        assert await process.token(TIKTOK, "reef") == "act.again"
    assert fleet.account.state == "active"


async def test_while_postgresql_is_away_the_rotated_token_is_kept_until_it_is_stored(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The platform had ended the old refresh token, and the new one was only in this process."""
    fleet.age(0.9)
    back = asyncio.Event()
    save = PostgresGrants.save

    async def away_until_back(self: PostgresGrants, *given: Any) -> bool:
        if not back.is_set():
            raise StoreAway("the server closed the connection")
        return await save(self, *given)

    monkeypatch.setattr(PostgresGrants, "save", away_until_back)
    monkeypatch.setattr(token_refresh, "SAVE_AGAIN_SECONDS", 0.05)
    async with fleet.process(own_wait=0.2) as process:
        assert await process.token(TIKTOK, "reef") == "act.old"  # it works still, so the caller does not wait for the new one
        with pytest.raises(NotYet, match="still being renewed or stored"):
            await process.renewed(TIKTOK, "reef", "act.old")
        back.set()
    async with fleet.process() as other:
        assert await other.token(TIKTOK, "reef") == "act.token-1"
    assert len(fleet.server.calls) == 1


async def test_an_account_that_nothing_uses_is_renewed_once_a_week(fleet: Fleet) -> None:
    async with fleet.process() as process:
        assert await process.renew_idle() == {}
        assert fleet.server.calls == []
        fleet.write("UPDATE phantoms.accounts SET access_issued_at = clock_timestamp() - interval '8 days'")
        assert await process.renew_idle() == {}
        assert await process.renew_idle() == {}
    assert len(fleet.server.calls) == 1


async def test_tokens_are_encrypted_in_the_database_and_a_wrong_key_loses_none(fleet: Fleet) -> None:
    with psycopg.connect(fleet.database_url.replace("+psycopg", "")) as connection:
        [row] = connection.execute("SELECT accounts::text, access_token, refresh_token FROM phantoms.accounts").fetchall()
    assert not any(token in str(row) for token in ("act.old", "rft.old"))
    fleet.key = new_key()
    async with fleet.process() as process:
        with pytest.raises(Permanent, match=r"cannot be read: no key in the test's keys .* They are not lost") as refused:
            await process.token(TIKTOK, "reef")
    assert fleet.key not in str(refused.value)
    fleet.key = KEY
    async with fleet.process() as process:
        assert await process.token(TIKTOK, "reef") == "act.old"


async def test_a_key_is_replaced_without_losing_a_token_and_old_processes_read_on(fleet: Fleet) -> None:
    keys = [KEY]
    vault = Vault(lambda: keys, "the keys")
    database = async_engine(fleet.database_url)
    store = PostgresGrants(database, vault)
    assert (await store.read(TIKTOK, "reef")) is not None  # this process has read the keys
    keys.insert(0, new_key())
    assert with_engine(fleet.database_url, lambda e: Grants(e, Vault(lambda: keys, "the keys")).reencrypt()) == 1
    stored = await store.read(TIKTOK, "reef")
    await database.dispose()
    assert stored is not None
    assert (stored.access_token, stored.refresh_token) == ("act.old", "rft.old")
    fleet.key = keys[0]  # the new key alone is enough
    async with fleet.process() as process:
        assert await process.token(TIKTOK, "reef") == "act.old"


async def test_another_owner_cannot_take_over_a_connected_account(fleet: Fleet) -> None:
    other = AccountIdentity("open-2", "Lagoon")
    grants = Grant("act.other", 60, "rft.other")
    with pytest.raises(Exception, match=r"tiktok:reef has another owner than Lagoon \(open-2\)"):
        with_engine(fleet.database_url, lambda e: Grants(e, fleet.vault()).connect(TIKTOK, "reef", grants, other))
    async with fleet.process() as process:
        assert await process.token(TIKTOK, "reef") == "act.old"


async def test_no_error_of_a_token_endpoint_repeats_a_token_or_a_secret(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    for body in ("rft.old", '{"error": "odd", "error_description": "rft.old with app-secret=1&client_secret=app-secret was odd"}'):
        fleet.server.rotates = False
        fleet.server.answers.append(lambda body=body: web.Response(status=400, text=body))  # type: ignore[misc]
        fleet.age(1.0)
        async with fleet.process(pause=0.0) as process:
            with pytest.raises((Permanent, Transient)) as refused:
                await process.token(TIKTOK, "reef")
        said = f"{refused.value} {refused.value.evidence} {caplog.text}"
        assert not any(secret in said for secret in ("rft.old", "act.old", "client_secret=app-secret"))


async def test_a_connection_that_ends_soon_is_reported_once_before_its_posts_wait(fleet: Fleet) -> None:
    def waits() -> Any:
        return with_engine(fleet.database_url, lambda e: AttentionBoard(e).read())

    fleet.connect(refresh_life_seconds=30 * 86_400.0)
    assert waits() == []
    fleet.connect(refresh_life_seconds=6 * 86_400.0)
    [first], [again] = waits(), waits()
    assert (first.id, first.alert) == ("expiring:tiktok:reef", True)
    assert first.next_step == "phantoms accounts connect tiktok --name reef"
    assert first.since == again.since
    assert standing(fleet.account, datetime.now(UTC)).state == EXPIRING
    # The stored tokens are kept, but channels.yaml names another place now.
    fleet.write("UPDATE phantoms.accounts SET token_ref = 'env:REEF'")
    assert waits() == []
    assert standing(fleet.account, datetime.now(UTC)).state == CONNECTED


async def test_platforms_stay_known_as_connected_while_the_database_is_away(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    services = Services(Settings(database={"url": fleet.database_url}))
    monkeypatch.setattr("phantoms_dagster.wiring.endpoints.CONNECTED_SECONDS", 0.0)
    try:
        assert not services.endpoints.sandboxed("tiktok")
        away = OperationalError("SELECT", {}, Exception("the server closed the connection"))
        monkeypatch.setattr(Accounts, "connected_platforms", lambda _: (_ for _ in ()).throw(away))
        assert not services.endpoints.sandboxed("tiktok")
    finally:
        services.close()


async def test_a_database_that_is_away_is_not_taken_for_a_channels_file_without_tokens(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "channels.yaml"
    file.write_text(TWO_ACCOUNTS)
    services = Services(Settings(database={"url": fleet.database_url}, paths={"home": tmp_path, "channels": file}))
    try:
        assert set(services.channels()) == {"facts", "more"}  # account reef is connected, and needs no token in the file
        away = OperationalError("SELECT", {}, Exception("the server closed the connection"))
        monkeypatch.setattr(Accounts, "all", lambda _: (_ for _ in ()).throw(away))
        with pytest.raises(OperationalError):
            services.channels()
    finally:
        services.close()


# --- people who connect and disconnect meanwhile ----------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["tokens", "invalid_grant"])
async def test_a_late_answer_changes_nothing_in_an_account_that_was_removed_and_connected_again(fleet: Fleet, answer: str) -> None:
    """The generations began at 1 again, so the answer to a refresh of the removed account was taken for one of the new account."""
    fleet.age(1.0)
    fleet.server.hold = asyncio.Event()
    async with fleet.process() as process:
        asked = asyncio.create_task(process.token(TIKTOK, "reef"))
        await fleet.server.came.wait()
        if answer == "invalid_grant":
            fleet.server.answers.append(lambda: web.json_response({"error": "invalid_grant"}))
        fleet.disconnect()
        assert with_engine(fleet.database_url, lambda e: Accounts(e).forget(TIKTOK, "reef", named=False))
        fleet.connect(access_token="act.by-hand", refresh_token="rft.by-hand")
        fleet.server.hold.set()
        assert await asked == "act.by-hand"
        assert await process.token(TIKTOK, "reef") == "act.by-hand"
    assert (fleet.account.state, fleet.account.dead) == ("active", False)


async def test_a_refresh_that_ends_after_its_account_was_disconnected_stores_nothing(fleet: Fleet) -> None:
    fleet.age(1.0)
    fleet.server.hold = asyncio.Event()
    async with fleet.process() as process:
        asked = asyncio.create_task(process.token(TIKTOK, "reef"))
        await fleet.server.came.wait()
        fleet.disconnect()
        fleet.server.hold.set()
        with pytest.raises(Disconnected, match="is not connected"):
            await asked
    assert (fleet.account.state, fleet.account.token_source) == ("active", None)


async def test_a_process_that_read_the_tokens_before_another_one_renewed_them_does_not_begin_to_renew(fleet: Fleet) -> None:
    """It would send a refresh token that the platform has replaced, however long ago the other process renewed it."""
    read = fleet.read()
    async with fleet.process() as process:
        assert await process.renewed(TIKTOK, "reef", "act.old") == "act.token-1"
    database = async_engine(fleet.database_url)
    try:
        store, new = PostgresGrants(database, fleet.vault()), fleet.read().generation
        for generation, begins in ((read.generation, False), (new, True)):
            assert await store.begin(TIKTOK, "reef", generation, "hash", lease_seconds=60, pause_seconds=0) is begins
    finally:
        await database.dispose()


async def test_tokens_that_came_after_the_disconnecting_person_had_looked_are_not_deleted_unrevoked(fleet: Fleet) -> None:
    """A disconnection tells the platform about the tokens that it deletes, also when a refresh came in between."""
    read = fleet.read()
    async with fleet.process() as process:
        assert await process.renewed(TIKTOK, "reef", "act.old") == "act.token-1"
    assert not fleet.disconnect(read.generation)
    assert fleet.read().access_token == "act.token-1"
    assert fleet.disconnect()


async def test_a_person_can_connect_while_runners_hold_its_waiting_posts_in_another_order(database_url: str) -> None:
    """The platform gives each code once, so a deadlock here would lose the tokens."""
    async with open_world(database_url) as world:
        keys = world.add(2, platforms=(TIKTOK,))
        for key in reversed(keys):  # rows that were changed last come last in the table
            world.write(
                """UPDATE phantoms.stages SET state = 'deferred', retry_at = clock_timestamp() + interval '1 day',
                reason = 'tiktok account reef waits: it is not connected' WHERE stage = 'tiktok/post'
                AND video_id = (SELECT id FROM phantoms.videos WHERE key = :key)""",
                key=key,
            )
        grant = Grant(access_token="act.new", life_seconds=86_400, refresh_token="rft.new")
        lock = text(
            """SELECT FROM phantoms.stages WHERE stage = 'tiktok/post'
            AND video_id = (SELECT id FROM phantoms.videos WHERE key = :key) FOR UPDATE"""
        )
        grants = Grants(world.engine, Vault(lambda: [KEY], "the test's keys"))
        with world.engine.begin() as runner:
            runner.execute(lock, {"key": keys[0]})
            connecting = asyncio.create_task(asyncio.to_thread(grants.connect, TIKTOK, "reef", grant, OWNER))
            await asyncio.to_thread(world.until_blocked)
            await asyncio.to_thread(runner.execute, lock, {"key": keys[1]})
        await connecting
        assert world.rows("SELECT 1 FROM phantoms.stages WHERE stage = 'tiktok/post' AND retry_at > clock_timestamp()") == []
