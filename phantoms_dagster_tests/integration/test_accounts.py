"""The owner of an account's token is checked before the first byte of a post. A refused token stops the whole account."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from phantoms_dagster.domain.accounts import ACTIVE, BARRED, DISCONNECTED, MISMATCH
from phantoms_dagster.domain.claims import StageTask
from phantoms_dagster.domain.errors import Barred, Disconnected, Permanent
from phantoms_dagster.domain.grants import Grant
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import AccountIdentity, MetricsPage, PublishJob
from phantoms_dagster.domain.publication import PublishVerbs
from phantoms_dagster.platforms.youtube.identity import YouTubeIdentity
from phantoms_dagster.production.accounts import ASK_AGAIN_SECONDS, CONNECTED_SECONDS, AccountGate, AccountWaits
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.accounts import Accounts, PostgresAccounts
from phantoms_dagster.store.grants import Grants
from phantoms_dagster.store.performance.tables import PerformanceTables
from phantoms_dagster.store.planning import CHANNEL as READY_CHANNEL
from phantoms_dagster.store.results.readings import Results
from phantoms_dagster.store.vault import Vault, new_key
from phantoms_dagster.wiring.account_adapters import AccountMetricsReader, AccountPublisher
from phantoms_dagster.wiring.endpoints import Endpoints
from phantoms_dagster.wiring.token_check import check_token
from phantoms_dagster.wiring.tokens import read
from phantoms_dagster_tests.integration.publishing_world import Studio, open_studio
from phantoms_dagster_tests.integration.stage_world import CHANNEL, World, open_world

YOUTUBE = Platform("youtube")


class TokenFile:
    """Tokens that a person replaces while workers run."""

    def __init__(self, **tokens: str) -> None:
        self.tokens = tokens

    async def token(self, platform: Platform, account: str) -> str:
        if account not in self.tokens:
            raise Permanent(f"{account} is not connected", provider=str(platform), code="not_connected")
        return self.tokens[account]

    async def renewed(self, platform: Platform, account: str, refused: str) -> str | None:
        current = await self.token(platform, account)
        return current if current != refused else None


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
async def studio(world: World, tmp_path: Path) -> AsyncIterator[Studio]:
    async with open_studio(world, tmp_path) as opened:
        yield opened


def gate(studio: Studio, tokens: TokenFile) -> AccountGate:
    reader = YouTubeIdentity(client=studio.client, base_url=studio.base_url, tokens=tokens, clock=studio.clock)
    store = PostgresAccounts(studio.world.async_engine)
    return AccountGate(store=store, tokens=tokens, readers={YOUTUBE: reader}, sandboxed=lambda _: False)


def asked(studio: Studio) -> int:
    return studio.sandbox.calls.get("youtube.channels", 0)


async def test_the_platform_is_asked_once_whose_a_token_is_and_again_when_the_token_changes(studio: Studio) -> None:
    tokens = TokenFile(main="sandbox-ocean")
    for _ in range(3):
        await gate(studio, tokens).enter(YOUTUBE, "main")
    assert asked(studio) == 1
    [account] = [a for a in Accounts(studio.world.engine).all() if a.name == "main"]
    assert account.label == "ocean"
    studio.world.write("UPDATE phantoms.accounts SET token_sha256 = 'other' WHERE name = 'main'")
    await gate(studio, tokens).enter(YOUTUBE, "main")
    assert asked(studio) == 2


async def test_a_token_of_another_owner_is_refused_with_both_names_until_the_right_one_is_back(studio: Studio) -> None:
    tokens = TokenFile(main="sandbox-ocean")
    await gate(studio, tokens).enter(YOUTUBE, "main")
    tokens.tokens["main"] = "sandbox-desert"
    with pytest.raises(AccountWaits, match=r"belongs to desert \(.*\), but the account was ocean .* before"):
        await gate(studio, tokens).enter(YOUTUBE, "main")
    assert [a.state for a in Accounts(studio.world.engine).waiting()] == [MISMATCH]
    tokens.tokens["main"] = "sandbox-ocean"
    await gate(studio, tokens).enter(YOUTUBE, "main")
    assert Accounts(studio.world.engine).waiting() == []


async def test_a_forgotten_account_takes_its_next_token(studio: Studio) -> None:
    tokens = TokenFile(main="sandbox-ocean")
    await gate(studio, tokens).enter(YOUTUBE, "main")
    tokens.tokens["main"] = "sandbox-desert"
    with pytest.raises(AccountWaits):
        await gate(studio, tokens).enter(YOUTUBE, "main")
    Accounts(studio.world.engine).forget(YOUTUBE, "main")
    await gate(studio, tokens).enter(YOUTUBE, "main")
    assert Accounts(studio.world.engine).waiting() == []


async def test_two_accounts_of_the_channels_cannot_have_one_token(studio: Studio) -> None:
    other = CHANNEL.model_copy(update={"name": "other", "accounts": {YOUTUBE: "second"}})
    first = CHANNEL.model_copy(update={"accounts": {YOUTUBE: "first"}})
    studio.world.catalogue.put_channels([first, other])
    tokens = TokenFile(first="sandbox-ocean", second="sandbox-ocean")
    await gate(studio, tokens).enter(YOUTUBE, "first")
    with pytest.raises(AccountWaits, match="which is already account first"):
        await gate(studio, tokens).enter(YOUTUBE, "second")


async def test_a_refused_token_stops_the_account_once_and_its_posts_go_on_when_it_is_replaced(studio: Studio) -> None:
    keys = await studio.ready_to_post(count=3)
    tokens = TokenFile(main="sandbox-ocean")
    watched = gate(studio, tokens)
    await watched.enter(YOUTUBE, "main")
    refusal = Disconnected("the token is dead", provider="youtube", code="authError")
    waits = await watched.refused(YOUTUBE, "main", refusal)
    assert waits.retry_after == ASK_AGAIN_SECONDS
    before = asked(studio)
    for _ in keys:
        with pytest.raises(AccountWaits, match="youtube account main waits: the token is dead"):
            await watched.enter(YOUTUBE, "main")
    assert asked(studio) == before  # the token is not checked for each video
    [account] = Accounts(studio.world.engine).waiting()
    assert (account.state, account.reason) == (DISCONNECTED, "the token is dead")
    studio.world.write(
        "UPDATE phantoms.stages SET state = 'deferred', retry_at = clock_timestamp() + interval '1 hour', reason = :why"
        " WHERE stage = 'youtube/post'",
        why=str(waits),
    )
    assert studio.world.due("youtube/post") == []
    studio.world.write("UPDATE phantoms.accounts SET token_sha256 = 'the dead one'")
    await watched.enter(YOUTUBE, "main")
    assert studio.world.due("youtube/post") == keys


async def test_an_account_without_a_token_waits_and_says_what_is_missing(studio: Studio) -> None:
    with pytest.raises(AccountWaits, match="youtube account main waits: main is not connected"):
        await gate(studio, TokenFile()).enter(YOUTUBE, "main")


async def test_nothing_of_the_sandbox_is_kept_with_the_real_accounts(studio: Studio) -> None:
    store = PostgresAccounts(studio.world.async_engine)
    watched = AccountGate(store=store, tokens=TokenFile(), readers={}, sandboxed=lambda _: True)
    await watched.enter(YOUTUBE, "main")
    assert [a for a in Accounts(studio.world.engine).all() if a.subject] == []


def test_a_renewed_secret_file_is_read_by_running_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    assert read(YOUTUBE, "main", f"file:{file}") == "one"
    file.write_text("two\n")
    assert read(YOUTUBE, "main", f"file:{file}") == "two"
    file.unlink()
    with pytest.raises(Permanent, match="cannot be read: No such file"):
        read(YOUTUBE, "main", f"file:{file}")
    monkeypatch.delenv("CURIOUS_TOKEN", raising=False)
    with pytest.raises(Permanent, match=r"the variable CURIOUS_TOKEN .* is empty or not set"):
        read(YOUTUBE, "main", "env:CURIOUS_TOKEN")


async def test_a_dead_token_is_the_accounts_trouble_in_the_youtube_adapter(studio: Studio) -> None:
    with pytest.raises(Disconnected):
        await YouTubeIdentity(
            client=studio.client, base_url=studio.base_url, tokens=TokenFile(main="dead"), clock=studio.clock
        ).read("main")


async def test_numbers_of_the_sandbox_are_in_no_table_and_are_no_longer_read_once_a_real_post_is_out(studio: Studio) -> None:
    world = studio.world
    keys = world.add(2)
    for key, sandbox, views in ((keys[0], True, 1_000_000), (keys[1], False, 7)):
        world.write(
            "WITH p AS (INSERT INTO phantoms.posts (video_id, platform, account, state, marker, remote_id, sandbox, video_sha256,"
            " caption_sha256, published_at) SELECT id, 'youtube', 'main', 'confirmed', :key, :key, :sandbox, 'v', 'c',"
            " clock_timestamp() FROM phantoms.videos WHERE key = :key RETURNING id)"
            " INSERT INTO phantoms.metric_snapshots (post_id, views) SELECT id, :views FROM p",
            key=key,
            sandbox=sandbox,
            views=views,
        )
        PerformanceTables(world.engine).renew("video_performance")
        made = world.rows("SELECT video_key, views FROM phantoms.video_performance")
        assert [(row["video_key"], row["views"]) for row in made] == [(key, views)]
    results = Results(world.engine)
    assert [post.video_key for post in results.due(sandboxed=[])] == [keys[1]]
    assert [post.video_key for post in results.due(sandboxed=["youtube"])] == [keys[0]]


async def test_doctor_asks_the_platform_whose_a_token_is(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURIOUS_TOKEN", "sandbox-ocean")
    settings = Settings(platforms={"youtube": {"base_url": studio.base_url, "token": None}})
    endpoints = Endpoints(settings, lambda: ["youtube"])
    found = await check_token(settings, endpoints, YOUTUBE, "main", "env:CURIOUS_TOKEN")
    assert found.owner is not None
    assert (found.owner.label, found.missing) == ("ocean", [])
    monkeypatch.setenv("CURIOUS_TOKEN", "dead")
    with pytest.raises(Disconnected):
        await check_token(settings, endpoints, YOUTUBE, "main", "env:CURIOUS_TOKEN")


# --- every post passes the gate ------------------------------------------------------------------------------------


async def post(studio: Studio, key: str, publisher: object) -> None:
    store, claim = await studio.claim(key)
    await studio.publish(publisher)(StageTask(claim, await store.attempt(claim)))


async def test_a_post_sends_nothing_while_its_account_has_the_token_of_another_owner(studio: Studio) -> None:
    [key] = await studio.ready_to_post()
    name = CHANNEL.accounts[YOUTUBE]
    tokens = TokenFile(**{name: "sandbox-ocean"})
    watched = gate(studio, tokens)
    await watched.enter(YOUTUBE, name)
    tokens.tokens[name] = "sandbox-desert"
    with pytest.raises(AccountWaits, match="belongs to desert"):
        await post(studio, key, AccountPublisher(studio.youtube(), watched))
    assert studio.posts() == []
    assert "youtube.open" not in studio.sandbox.calls
    tokens.tokens[name] = "sandbox-ocean"
    await post(studio, key, AccountPublisher(studio.youtube(), watched))
    assert len(studio.posts()) == 1


class Refused:
    """A publisher whose token dies in the middle of a post."""

    provider, platform, sandbox, account_first = "youtube", YOUTUBE, True, False

    @asynccontextmanager
    async def verbs(self, job: PublishJob) -> AsyncIterator[PublishVerbs]:
        raise Disconnected("the token is dead", provider="youtube", code="authError")
        yield


async def test_a_token_that_dies_in_the_middle_of_a_post_stops_the_account_and_fails_no_video(studio: Studio) -> None:
    [key] = await studio.ready_to_post()
    name = CHANNEL.accounts[YOUTUBE]
    watched = gate(studio, TokenFile(**{name: "sandbox-ocean"}))
    with pytest.raises(AccountWaits, match="the token is dead"):
        await post(studio, key, AccountPublisher(Refused(), watched))
    assert [(a.name, a.state) for a in Accounts(studio.world.engine).waiting()] == [(name, DISCONNECTED)]


class Limited:
    """A publisher whose account may not post until a person grants the permission."""

    provider, platform, sandbox, account_first = "youtube", YOUTUBE, True, False

    def __init__(self, studio: Studio) -> None:
        self.granted, self.asked = False, 0
        self._publisher = studio.youtube()

    @asynccontextmanager
    async def verbs(self, job: PublishJob) -> AsyncIterator[PublishVerbs]:
        self.asked += 1
        if not self.granted:
            raise Barred("youtube.upload was not granted", provider="youtube", code="insufficientPermissions")
        async with self._publisher.verbs(job) as verbs:
            yield verbs


async def test_a_missing_permission_is_one_trouble_of_the_account_until_a_post_goes_through(studio: Studio) -> None:
    keys = await studio.ready_to_post(count=3)
    name, world = CHANNEL.accounts[YOUTUBE], studio.world
    limited = Limited(studio)
    guarded = AccountPublisher(limited, gate(studio, TokenFile(**{name: "sandbox-ocean"})))

    async def refused(key: str) -> None:
        with pytest.raises(AccountWaits, match=r"waits: youtube\.upload was not granted"):
            await post(studio, key, guarded)

    for key in keys:
        await refused(key)
    assert limited.asked == 1  # the others were not sent to be refused in turn
    [told] = Accounts(world.engine).waiting()
    assert (told.name, told.state) == (name, BARRED)
    hour = "UPDATE phantoms.accounts SET asked_at = asked_at - interval '1 hour'"
    world.write(hour)
    await refused(keys[0])  # the token's owner is known, and that says nothing of what it may do
    assert [(a.state, a.since) for a in Accounts(world.engine).waiting()] == [(BARRED, told.since)]  # no second alert
    limited.granted = True
    world.write(hour)
    await post(studio, keys[0], guarded)
    assert [a.state for a in Accounts(world.engine).all() if a.name == name] == [ACTIVE]
    await post(studio, keys[1], guarded)
    assert len(studio.posts()) == 2


async def test_a_barred_account_is_tried_less_and_less_often_until_a_person_checks_it(studio: Studio) -> None:
    """A platform that restricted an account may hold each further try against it."""
    await studio.ready_to_post(count=1)
    name, world = CHANNEL.accounts[YOUTUBE], studio.world
    watched = gate(studio, TokenFile(**{name: "sandbox-ocean"}))
    await watched.enter(YOUTUBE, name)
    await watched.refused(YOUTUBE, name, Barred("the account is restricted", provider="youtube", code="restricted"))

    async def tried(*, barred_for: str, asked_ago: str) -> bool:
        world.write(
            "UPDATE phantoms.accounts SET state_since = clock_timestamp() - CAST(:barred AS interval),"
            " asked_at = clock_timestamp() - CAST(:asked AS interval)",
            barred=barred_for,
            asked=asked_ago,
        )
        try:
            return (await watched.enter(YOUTUBE, name)).probes
        except AccountWaits:
            return False

    assert await tried(barred_for="30 minutes", asked_ago="6 minutes")
    assert not await tried(barred_for="1 day", asked_ago="1 hour")
    assert await tried(barred_for="1 day", asked_ago="2 hours 5 minutes")
    assert not await tried(barred_for="40 days", asked_ago="5 hours")
    assert await tried(barred_for="40 days", asked_ago="6 hours 5 minutes")
    with pytest.raises(AccountWaits):
        await watched.enter(YOUTUBE, name)
    Accounts(world.engine).try_soon(YOUTUBE, name)
    assert (await watched.enter(YOUTUBE, name)).probes


@pytest.mark.parametrize("how", ["a post", "a read of results"])
async def test_a_refusal_of_old_tokens_says_nothing_about_an_account_that_was_connected_meanwhile(studio: Studio, how: str) -> None:
    """It was marked as disconnected right after a person had connected it, with an alert, and its posts waited for minutes."""
    tokens = TokenFile(main="sandbox-ocean")
    watched = gate(studio, tokens)
    await watched.enter(YOUTUBE, "main")
    dead = Disconnected("the token is dead", provider="youtube", code="authError")

    def connects_again() -> None:
        tokens.tokens["main"] = "sandbox-ocean~2"
        [known] = [one for one in Accounts(studio.world.engine).all() if one.name == "main"]
        owner = AccountIdentity(str(known.subject), str(known.label))
        keys = [new_key()]
        grant = Grant(access_token="sandbox-ocean~2", life_seconds=3600)
        Grants(studio.world.engine, Vault(lambda: keys, "the test's keys")).connect(YOUTUBE, "main", grant, owner)

    class RefusedMeanwhile(Reader):
        async def pages(self, account: str, remote_ids: object, *, without: object = ()) -> AsyncIterator[MetricsPage]:
            connects_again()
            raise dead
            yield

    if how == "a post":
        before = (await watched.enter(YOUTUBE, "main")).account
        connects_again()
        waits = await watched.refused(YOUTUBE, "main", dead, before)
        assert waits.retry_after == CONNECTED_SECONDS
    else:
        with pytest.raises(Disconnected):
            [page async for page in AccountMetricsReader(RefusedMeanwhile(dead), watched).pages("main", ["v"])]
    assert Accounts(studio.world.engine).waiting() == []
    await watched.enter(YOUTUBE, "main")
    await watched.refused(YOUTUBE, "main", dead, (await watched.enter(YOUTUBE, "main")).account)
    assert [account.name for account in Accounts(studio.world.engine).waiting()] == ["main"]


class Reader:
    """A reader of results that is refused."""

    provider, platform, sandbox = "youtube", YOUTUBE, False

    def __init__(self, error: Permanent) -> None:
        self._error = error

    async def pages(self, account: str, remote_ids: object, *, without: object = ()) -> AsyncIterator[MetricsPage]:
        raise self._error
        yield


async def test_a_dead_token_that_reading_meets_stops_the_account_and_a_missing_permission_to_read_does_not(studio: Studio) -> None:
    watched = gate(studio, TokenFile(main="sandbox-ocean"))
    await watched.enter(YOUTUBE, "main")
    for error, waiting in ((Barred("no analytics", provider="youtube"), []), (Disconnected("dead", provider="youtube"), ["main"])):
        with pytest.raises(type(error)):
            [page async for page in AccountMetricsReader(Reader(error), watched).pages("main", ["v"])]
        assert [account.name for account in Accounts(studio.world.engine).waiting()] == waiting


async def test_an_account_that_works_again_wakes_the_planner(studio: Studio) -> None:
    tokens = TokenFile(main="sandbox-ocean")
    watched = gate(studio, tokens)
    await watched.enter(YOUTUBE, "main")
    url = studio.world.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)

    async def revoked() -> None:
        await watched.refused(YOUTUBE, "main", Disconnected("dead", provider="youtube"))

    with psycopg.connect(url, autocommit=True) as listener:
        listener.execute(f"LISTEN {READY_CHANNEL}")
        await revoked()
        tokens.tokens["main"] = "sandbox-ocean~2"
        await watched.enter(YOUTUBE, "main")
        assert len(list(listener.notifies(timeout=10, stop_after=1))) == 1
        await revoked()
        Accounts(studio.world.engine).forget(YOUTUBE, "main")
        assert len(list(listener.notifies(timeout=10, stop_after=1))) == 1
