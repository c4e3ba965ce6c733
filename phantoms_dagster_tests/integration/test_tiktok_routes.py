"""Routes onto TikTok in the real ledger: a draft that waits for its creator, and a route that stays with its post."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner

from phantoms_dagster.cli.main import app
from phantoms_dagster.domain.claims import AttemptOutcome, Claim, StageTask
from phantoms_dagster.domain.errors import NotYet, StaleClaim, Unknown
from phantoms_dagster.domain.models import (
    Channel,
    Platform,
    PostingHours,
    PostWords,
    RenderedVideoOutput,
    content_hash,
)
from phantoms_dagster.domain.ports import AccountIdentity
from phantoms_dagster.domain.stages import PostState, StageState
from phantoms_dagster.platforms.tiktok.api import error_for
from phantoms_dagster.platforms.tiktok.choices import TikTokChoices
from phantoms_dagster.platforms.tiktok.gateway import fields
from phantoms_dagster.platforms.tiktok.handover import waiting_for_creator
from phantoms_dagster.platforms.tiktok.publisher import TikTokPublisher
from phantoms_dagster.platforms.tiktok.requests import check_job
from phantoms_dagster.production.accounts import AccountGate
from phantoms_dagster.production.late_ids import LookupRound, find_late_ids
from phantoms_dagster.production.stages.post import Publish
from phantoms_dagster.providers.tools import ServiceTools
from phantoms_dagster.providers.uploadpost.publisher import GatewayRules, UploadPostPublisher
from phantoms_dagster.providers.uploadpost.results import UploadPostLateIds
from phantoms_dagster.sandbox.core import Fault, Sandbox, application
from phantoms_dagster.sandbox.tiktok.routes import routes
from phantoms_dagster.sandbox.uploadpost.routes import routes as gateway_routes
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.accounts import Accounts, PostgresAccounts
from phantoms_dagster.store.attention import AttentionBoard
from phantoms_dagster.store.audit import AuditLog
from phantoms_dagster.store.dead_letters.letters import DeadLetters, LetterFilter
from phantoms_dagster.store.decisions import Decisions
from phantoms_dagster.store.late_ids import LateIdTable
from phantoms_dagster.store.ledgers import PostgresLedgers
from phantoms_dagster.store.post_times import PostgresPostTimes
from phantoms_dagster.store.posts import Posts
from phantoms_dagster.store.results.readings import Results
from phantoms_dagster.wiring.account_adapters import AccountPublisher
from phantoms_dagster.wiring.endpoints import Endpoints, named_by
from phantoms_dagster_tests.integration.publishing_world import FakeTokens, Studio, open_studio
from phantoms_dagster_tests.integration.stage_world import CHANNEL, SCRIPT, World, media_file, open_world
from phantoms_dagster_tests.integration.test_reconciliation import posts

TIKTOK = Platform("tiktok")


def drafting(route: str = "inbox", privacy: str = "SELF_ONLY") -> Channel:
    choices = TikTokChoices.model_validate({"route": route, "privacy": privacy})
    return CHANNEL.model_copy(update={"accounts": {TIKTOK: "ocean"}, "tiktok": choices})


def _public_id(text: str) -> str | None:
    number = text.rpartition("/")[2]
    return number if number.isdigit() else None


def _listed(fields: Mapping[str, str]) -> bool:
    return fields["privacy_level"] == "PUBLIC_TO_EVERYONE"


class TikTokStudio:
    """The studio, with TikTok's stand-in."""

    def __init__(self, studio: Studio, sandbox: Sandbox, base_url: str) -> None:
        self.studio = studio
        self.world = studio.world
        self.sandbox = sandbox
        self.ledgers = PostgresLedgers(studio.world.async_engine)
        publisher = TikTokPublisher(client=studio.client, base_url=base_url, tokens=FakeTokens(), clock=studio.clock, sandbox=True)
        times = PostgresPostTimes(studio.world.async_engine, limits={}, clock=studio.clock)
        self.key = "sandbox-key"
        origin = base_url.removesuffix("/tiktok")
        service = ServiceTools(
            client=studio.client,
            base_url=f"{origin}/uploadpost/api",
            key=lambda: self.key,
            clock=studio.clock,
            sandbox=True,
            setting=lambda name: None,
            secret=lambda name: None,
        )
        rules = GatewayRules(check_job, fields, error_for, waiting_for_creator, _public_id, _listed)
        self.gateway = UploadPostPublisher(TIKTOK, rules, service, max_wait=60.0)
        self.publish = Publish(
            gateways={TIKTOK: self.gateway},
            publishers={TIKTOK: publisher},
            media=studio.store,
            ledgers=self.ledgers,
            times=times,
            clock=studio.clock,
        )

    async def ready(self, channel: Channel) -> str:
        [key] = await self.studio.rendered(channel=channel, platforms=(TIKTOK,))
        Decisions(self.world.engine).decide(key, approved=True, reviewer="ann", via="cli")
        await self.studio.approved(key)
        await self.studio.varied(key, TIKTOK)
        return key

    async def claim(self, key: str, owner: str = "poster") -> tuple[Any, Claim]:
        self.world.let_leases_expire()
        return await self.world.claimed("tiktok/post", key, owner=owner)

    async def post(self, key: str, owner: str = "poster") -> Any:
        store, claim = await self.claim(key, owner)
        return await self.publish(StageTask(claim, await store.attempt(claim)))

    def row(self) -> dict[str, Any]:
        return dict(self.world.rows("SELECT * FROM phantoms.posts")[0])


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
async def tiktok(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> AsyncIterator[TikTokStudio]:
    sandbox = Sandbox(seed=1)
    sandbox.config["tiktok.check_media"] = False
    async with (
        open_studio(world, tmp_path) as studio,
        TestServer(application(sandbox, [routes(sandbox), gateway_routes(sandbox)])) as server,
    ):
        studio.clock.sandbox = sandbox
        monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
        monkeypatch.setenv("PHANTOMS_DATABASE_URL", world.url)
        monkeypatch.setenv("PHANTOMS_REDIS_URL", redis_url)
        monkeypatch.setenv("PHANTOMS_SANDBOX_URL", str(server.make_url("/")).rstrip("/"))
        yield TikTokStudio(studio, sandbox, str(server.make_url("/tiktok")))


async def test_an_approved_draft_is_handed_over_and_published_when_its_creator_posts_it(tiktok: TikTokStudio) -> None:
    key = await tiktok.ready(drafting())
    with pytest.raises(NotYet, match="waiting for the creator"):
        await tiktok.post(key)
    row = tiktok.row()
    assert (row["state"], row["route"], row["remote_id"], row["published_at"]) == ("handed_over", "inbox", None, None)
    tiktok.sandbox.state["tiktok"].finish_draft(row["handle"]["publish_id"], {})
    done = await tiktok.post(key, "later")
    assert tiktok.row()["state"] == "confirmed"
    assert done.output.remote_id == tiktok.row()["remote_id"]
    assert [entry["kind"] for entry in tiktok.sandbox.ledger] == ["draft", "post"]


async def test_a_draft_that_waits_is_asked_for_outside_the_channels_hours_too(tiktok: TikTokStudio) -> None:
    now = tiktok.studio.clock.time
    hours = PostingHours(start=now.hour, end=(now.hour + 1) % 24 or 24)
    key = await tiktok.ready(drafting().model_copy(update={"posting_hours": hours}))
    with pytest.raises(NotYet, match="waiting for the creator"):
        await tiktok.post(key)
    tiktok.studio.clock.time += timedelta(hours=2)
    with pytest.raises(NotYet, match="waiting for the creator"):
        await tiktok.post(key, "at night")
    with pytest.raises(NotYet, match="goes out at"):
        await tiktok.post(await tiktok.ready(drafting().model_copy(update={"posting_hours": hours})), "another")


async def test_a_handed_over_post_leaves_its_account_free_for_the_next_one(tiktok: TikTokStudio) -> None:
    for owner in ("first", "second"):
        with pytest.raises(NotYet, match="waiting for the creator"):
            await tiktok.post(await tiktok.ready(drafting()), owner)
    assert [row["state"] for row in tiktok.world.rows("SELECT state FROM phantoms.posts")] == ["handed_over"] * 2


# --- a person's word -----------------------------------------------------------------------------------------------------


async def handed_over(tiktok: TikTokStudio) -> str:
    """A draft whose stage is deferred, as the runner leaves it."""
    key = await tiktok.ready(drafting())
    store, claim = await tiktok.claim(key)
    with pytest.raises(NotYet, match="waiting for the creator") as waits:
        await tiktok.publish(StageTask(claim, await store.attempt(claim)))
    at = tiktok.studio.clock.now() + timedelta(seconds=waits.value.retry_after)
    await store.finish(claim, AttemptOutcome(StageState.DEFERRED, None, at, counts=False, message=str(waits.value)))
    return key


async def test_a_draft_is_in_the_list_of_what_waits_at_once_and_only_once(tiktok: TikTokStudio) -> None:
    key = await handed_over(tiktok)
    [item] = AttentionBoard(tiktok.world.engine).read()
    assert (item.id, item.alert, item.keys) == (f"draft:tiktok:{key}", True, (key,))
    assert item.what.startswith(f"the draft of {key} has been in the TikTok inbox of ocean since ")
    assert item.next_step == f"phantoms posts show {key} tiktok"
    tiktok.world.write("UPDATE phantoms.stages SET started_at = clock_timestamp() - interval '4 days' WHERE stage = 'tiktok/post'")
    tiktok.world.write(
        "UPDATE phantoms.posts SET handle = handle || jsonb_build_object('handed_over_at', clock_timestamp() - interval '4 days')"
    )
    [later] = AttentionBoard(tiktok.world.engine).read()
    assert later.id == item.id, "an alert that was sent is not sent again"
    assert later.what.endswith("and nobody has said how it ended")


async def test_the_command_shows_the_caption_and_what_the_creator_must_do(tiktok: TikTokStudio) -> None:
    key = await handed_over(tiktok)
    shown = await posts("show", key, "tiktok")
    assert "waiting for the creator" in shown.output
    assert "switch on the AI label by hand" in shown.output
    [variant] = tiktok.world.rows("SELECT output->>'caption' AS caption FROM phantoms.stages WHERE stage = 'tiktok/variant'")
    assert variant["caption"] in shown.output
    assert f"phantoms posts settle {key} tiktok --there URL" in shown.output
    listed = await posts("list", "--state", "handed_over", "--json")
    assert [post["key"] for post in json.loads(listed.output)["posts"]] == [key]


async def test_a_draft_that_a_person_posted_is_published_in_that_persons_name(tiktok: TikTokStudio) -> None:
    key = await handed_over(tiktok)
    result = await posts("settle", key, "tiktok", "--there", "7300000000000000000", "--unread", "--yes", "--by", "ann")
    assert result.exit_code == 0, result.output
    row = tiktok.row()
    assert (row["state"], row["remote_id"]) == ("published", "7300000000000000000")
    assert row["proof"].startswith("person: ann says it is there")
    await tiktok.post(key, "later")
    assert tiktok.row()["state"] == "confirmed"
    assert len(tiktok.sandbox.ledger) == 1


async def test_a_draft_that_will_not_be_posted_is_discarded_and_only_a_replay_sends_it_again(tiktok: TikTokStudio) -> None:
    key = await handed_over(tiktok)
    result = await posts("settle", key, "tiktok", "--not-there", "--reason", "another video", "--yes", "--by", "ann")
    assert result.exit_code == 0, result.output
    row = tiktok.row()
    assert (row["state"], row["handle"], row["proof"]) == (
        "failed",
        {},
        "person: ann says it will not be posted: another video",
    )
    assert tiktok.world.row(key, "tiktok/post")["state"] == "discarded"
    [letter] = DeadLetters(tiktok.world.engine).list(LetterFilter(state="discarded"))
    assert (letter.key, letter.stage, letter.closed_by) == (key, "tiktok/post", "ann")
    assert AuditLog(tiktok.world.engine).page(subject=key)[0].action == "draft will not be posted"
    assert AttentionBoard(tiktok.world.engine).read() == []
    again = await posts("settle", key, "tiktok", "--not-there", "--yes")
    assert (again.exit_code, "not handed_over" in again.output or "not unknown" in again.output) == (2, True), again.output
    DeadLetters(tiktok.world.engine).replay(LetterFilter(ids=[letter.id], state=None), by="ann")
    with pytest.raises(NotYet, match="waiting for the creator"):
        await tiktok.post(key, "replayed")
    assert [entry["kind"] for entry in tiktok.sandbox.ledger] == ["draft", "draft"]


async def test_a_run_that_was_reading_saves_nothing_after_a_person_gave_the_draft_up(tiktok: TikTokStudio) -> None:
    key = await handed_over(tiktok)
    tiktok.world.write("UPDATE phantoms.stages SET retry_at = clock_timestamp() WHERE stage = 'tiktok/post'")
    _, claim = await tiktok.claim(key, "reading")
    words: dict[str, Any] = {"account": "ocean", "marker": "m", "video": media_file("v"), "caption": "", "sandbox": True}
    journal = await tiktok.ledgers.post(claim, **words)
    assert (await posts("settle", key, "tiktok", "--not-there", "--yes")).exit_code == 0
    with pytest.raises(StaleClaim):
        await journal.save(PostState.PUBLISHED, remote_id="7300000000000000000", url="u")
    assert tiktok.row()["state"] == "failed"


# --- the route -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("begun", "kept"), [("inbox", "inbox"), ("", "")])
async def test_a_post_that_has_begun_keeps_its_route_whatever_is_chosen_later(tiktok: TikTokStudio, begun: str, kept: str) -> None:
    key = await tiktok.ready(drafting())
    _, claim = await tiktok.claim(key)
    words: dict[str, Any] = {"account": "ocean", "marker": "m", "video": media_file("v"), "caption": "", "sandbox": True}
    await tiktok.ledgers.post(claim, **words, route=begun)
    other = "" if begun else "inbox"
    journal = await tiktok.ledgers.post(claim, **words, route=other)
    assert journal.record.route == other, "nothing was sent yet"
    journal = await tiktok.ledgers.post(claim, **words, route=begun)
    tiktok.world.write_post("UPDATE phantoms.posts SET state = 'opened', handle = jsonb_build_object('publish_id', 'x')")
    journal = await tiktok.ledgers.post(claim, **words, route=other)
    assert journal.record.route == kept


# --- the gateway -----------------------------------------------------------------------------------------------------------


async def test_an_approved_post_goes_through_the_gateway_with_what_was_approved(tiktok: TikTokStudio) -> None:
    key = await tiktok.ready(drafting("gateway"))
    done = await tiktok.post(key)
    [entry] = tiktok.sandbox.ledger
    row = tiktok.row()
    assert (row["state"], row["route"], row["remote_id"]) == ("confirmed", "gateway", entry["request_id"])
    assert (entry["privacy"], entry["is_aigc"], entry["account"]) == ("SELF_ONLY", True, "ocean")
    assert done.provider == "uploadpost"
    assert tiktok.sandbox.calls.get("tiktok.init", 0) == 0


async def test_what_the_platform_ignored_of_a_gateway_post_is_shown(tiktok: TikTokStudio) -> None:
    """A post whose AI label was ignored is public without it, and only a person can add it."""
    tiktok.sandbox.config["uploadpost.ignored_fields"] = ["is_aigc"]
    key = await tiktok.ready(drafting("gateway"))
    await tiktok.post(key)
    assert Posts(tiktok.world.engine).show(key, TIKTOK).warnings == ("is_aigc is ignored by tiktok",)
    shown = await asyncio.to_thread(CliRunner().invoke, app, ["posts", "show", key, "tiktok"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert "is_aigc is ignored by tiktok" in shown.output


async def test_a_post_that_the_gateway_has_is_not_sent_again_when_the_channel_posts_directly_now(tiktok: TikTokStudio) -> None:
    key = await tiktok.ready(drafting("gateway"))
    tiktok.sandbox.faults.append(Fault("uploadpost.upload", kind="drop_after", times=1))
    with pytest.raises(Unknown):
        await tiktok.post(key)
    direct = TikTokChoices.model_validate({"privacy": "SELF_ONLY"}).terms()
    approval = tiktok.world.rows("SELECT output FROM phantoms.stages WHERE stage = 'approval'")[0]["output"]
    words = [PostWords.model_validate(one) for one in approval["words"]]
    changed = [word.model_copy(update={"tiktok": direct}) for word in words]
    video = RenderedVideoOutput.model_validate(
        tiktok.world.rows("SELECT output FROM phantoms.stages WHERE stage = 'rendered_video'")[0]["output"]
    ).video
    content = content_hash(SCRIPT, video, changed)
    approval |= {"words": [word.model_dump(mode="json") for word in changed], "content_sha256": content}
    tiktok.world.write("UPDATE phantoms.stages SET output = CAST(:o AS jsonb) WHERE stage = 'approval'", o=json.dumps(approval))
    tiktok.world.write(
        "UPDATE phantoms.stages SET output = output || jsonb_build_object('content_sha256', CAST(:c AS text))"
        " WHERE stage = 'tiktok/variant'",
        c=content,
    )
    tiktok.sandbox.advance(5)
    await tiktok.post(key, "later")
    assert tiktok.row()["route"] == "gateway"
    assert len(tiktok.sandbox.ledger) == 1
    assert tiktok.sandbox.calls.get("tiktok.init", 0) == 0


async def test_only_one_post_of_an_account_is_open_whatever_its_route(tiktok: TikTokStudio) -> None:
    first, second = await tiktok.ready(drafting("gateway")), await tiktok.ready(drafting("inbox"))
    _, claim = await tiktok.claim(first, "first")
    words: dict[str, Any] = {"account": "ocean", "marker": "m", "video": media_file("v"), "caption": "", "sandbox": True}
    journal = await tiktok.ledgers.post(claim, **words, route="gateway")
    await journal.save(PostState.OPENED, handle={"request_id": "x"})
    _, other = await tiktok.world.claimed("tiktok/post", second, owner="second")
    journal = await tiktok.ledgers.post(other, **words, route="inbox")
    with pytest.raises(NotYet, match=f"{first} is being published on tiktok:ocean"):
        await journal.save(PostState.OPENED, handle={"publish_id": "y"})


def test_the_sandbox_answers_for_a_gateway_that_a_channel_uses_and_only_then() -> None:
    settings = Settings()
    for named, used in ((set(), False), (named_by([drafting("gateway")]), True), (named_by([drafting("inbox")]), False)):
        endpoints = Endpoints(settings, named=lambda named=named: named)  # type: ignore[misc]
        assert ("uploadpost" in endpoints.sandbox_needed) is used
    real = Endpoints(Settings(providers={"uploadpost": {"api_key": "a-key-of-ours"}}), named=lambda: {"uploadpost"})
    assert not real.sandboxed("uploadpost")
    assert real.key("uploadpost") == "a-key-of-ours"


async def test_numbers_of_gateway_posts_are_read_from_the_gateway_even_if_the_account_is_not_connected(
    tiktok: TikTokStudio,
) -> None:
    await tiktok.post(await tiktok.ready(drafting("gateway")))
    tiktok.world.write("UPDATE phantoms.posts SET published_at = clock_timestamp() - interval '2 hours'")
    results = Results(tiktok.world.engine)
    assert [row.by_gateway for row in results.due(sandboxed=None)] == [True]
    assert results.due(sandboxed=["tiktok"]) == []
    assert len(results.due(sandboxed=[], gateways=["tiktok"])) == 1


async def test_the_late_id_of_a_gateway_post_is_asked_for_at_the_gateway_and_saved_once(tiktok: TikTokStudio) -> None:
    tiktok.sandbox.config |= {"uploadpost.id_seconds": 60.0, "uploadpost.final_seconds": 0.0}
    await tiktok.post(await tiktok.ready(drafting("gateway", privacy="PUBLIC_TO_EVERYONE")))
    request_id = tiktok.row()["remote_id"]
    tiktok.world.write("UPDATE phantoms.posts SET published_at = clock_timestamp() - interval '2 minutes'")
    rule = TIKTOK.spec.late_ids
    assert rule is not None
    assert LateIdTable(tiktok.world.engine, TIKTOK, rule).due(sandbox=True, most=9) == []
    table = LateIdTable(tiktok.world.engine, TIKTOK, rule, gateway=True)
    finder = UploadPostLateIds(TIKTOK, _public_id, tiktok.gateway.service)
    for seconds, found in ((0, 0), (61, 1)):
        tiktok.sandbox.advance(seconds)
        tiktok.world.write("UPDATE phantoms.late_ids SET ask_at = clock_timestamp()")
        done = LookupRound()
        await find_late_ids(table, {TIKTOK: finder}, tiktok.studio.clock, done, sandbox=True)
        assert (len(done.found), done.failures) == (found, {})
    [entry] = tiktok.sandbox.ledger
    row = tiktok.row()
    assert request_id != row["remote_id"] == entry["remote_id"]
    assert row["url"].endswith(f"/uploadpost/watch/{entry['remote_id']}")
    assert table.due(sandbox=True, most=9) == []


async def test_the_list_of_accounts_says_that_the_sandbox_answers(tiktok: TikTokStudio) -> None:
    await tiktok.ready(drafting())
    listed = await asyncio.to_thread(lambda: CliRunner().invoke(app, ["accounts", "list"], env={"COLUMNS": "200"}))
    assert listed.exit_code == 0, listed.output
    assert "none, because the sandbox answers" in listed.output
    assert "not asked yet" not in listed.output


async def test_the_list_of_accounts_shows_their_routes_and_works_without_a_usable_channels_file(
    tiktok: TikTokStudio, tmp_path: Path
) -> None:
    await tiktok.ready(drafting())
    file = tmp_path / "channels.yaml"
    for text, route in (
        ("channels: {sea: {title: Sea, brand_voice: Calm., accounts: {tiktok: ocean}, tiktok: {route: inbox}}}", "inbox"),
        ("channels: [", ""),
    ):
        file.write_text(text)
        listed = await asyncio.to_thread(CliRunner().invoke, app, ["accounts", "list", "--json"])
        assert listed.exit_code == 0, listed.output
        accounts = {(one["platform"], one["name"]): one["route"] for one in json.loads(listed.output)["accounts"]}
        assert accounts["tiktok", "ocean"] == route


async def test_a_key_that_the_gateway_refuses_stops_the_account_once_and_another_key_goes_on(tiktok: TikTokStudio) -> None:
    class Keys:
        async def token(self, platform: Platform, account: str) -> str:
            return tiktok.key

        async def renewed(self, platform: Platform, account: str, refused: str) -> str | None:
            return None

    accounts = PostgresAccounts(tiktok.world.async_engine).at("uploadpost")
    gate = AccountGate(store=accounts, tokens=Keys(), readers={TIKTOK: tiktok.gateway}, sandboxed=lambda _: False)
    tiktok.publish._gateways = {TIKTOK: AccountPublisher(tiktok.gateway, gate)}
    await tiktok.post(await tiktok.ready(drafting("gateway")))
    account = await accounts.look(TIKTOK, "ocean")
    assert (account.subject, account.label) == ("uploadpost:ocean", "ocean at Upload-Post")
    tiktok.sandbox.config["uploadpost.revoked_keys"] = ["sandbox-key"]
    key = await tiktok.ready(drafting("gateway"))
    with pytest.raises(NotYet, match=r"tiktok account ocean waits: .*PHANTOMS_UPLOADPOST_API_KEY"):
        await tiktok.post(key, "refused")
    assert (await accounts.look(TIKTOK, "ocean")).state == "disconnected"
    tiktok.key = "another-key"
    await tiktok.post(key, "renewed")
    assert (await accounts.look(TIKTOK, "ocean")).state == "active"
    assert [entry["kind"] for entry in tiktok.sandbox.ledger] == ["post", "post"]
    assert "sandbox-key" not in str(tiktok.world.rows("SELECT * FROM phantoms.accounts"))


async def test_an_account_posts_through_the_gateway_and_is_connected_to_tiktok_in_either_order(tiktok: TikTokStudio) -> None:
    """Each of the two owners stopped the account for the other: posts waited, and connecting again was refused."""

    class Tokens:
        def __init__(self, token: str) -> None:
            self.value = token

        async def token(self, platform: Platform, account: str) -> str:
            return self.value

        async def renewed(self, platform: Platform, account: str, refused: str) -> str | None:
            return None

    class Reader:
        platform = TIKTOK
        subject = "open-1"

        async def read(self, account: str) -> AccountIdentity:
            return AccountIdentity(self.subject, "Ocean")

    own, owner = PostgresAccounts(tiktok.world.async_engine), Reader()
    at_gateway, real = own.at("uploadpost"), Tokens("act.one")
    by_gateway = AccountGate(
        store=at_gateway, tokens=Tokens("sandbox-key"), readers={TIKTOK: tiktok.gateway}, sandboxed=lambda _: False
    )
    direct = AccountGate(store=own, tokens=real, readers={TIKTOK: owner}, sandboxed=lambda _: False)
    tiktok.publish._gateways = {TIKTOK: AccountPublisher(tiktok.gateway, by_gateway)}
    for name, order in (("ocean", (direct, by_gateway)), ("reef", (by_gateway, direct))):
        for gate in order:
            await gate.enter(TIKTOK, name)
        assert (await own.look(TIKTOK, name)).label == "Ocean"
        assert (await at_gateway.look(TIKTOK, name)).label == f"{name} at Upload-Post"
        owner.subject = "open-2"
    await tiktok.post(await tiktok.ready(drafting("gateway")))
    assert [entry["kind"] for entry in tiktok.sandbox.ledger] == ["post"]
    real.value = "act.of-a-stranger"
    with pytest.raises(NotYet, match=r"its token belongs to Ocean \(open-2\), but the account was Ocean \(open-1\) before"):
        await direct.enter(TIKTOK, "ocean")
    await tiktok.post(await tiktok.ready(drafting("gateway")), "again")
    waiting = Accounts(tiktok.world.engine).waiting()
    assert [(one.key, one.gateway, one.state) for one in waiting] == [("tiktok:ocean", "", "mismatch")]
    [item] = [item for item in AttentionBoard(tiktok.world.engine).read() if item.id.startswith("account:")]
    assert (item.id, item.next_step) == ("account:tiktok:ocean", "phantoms accounts connect tiktok --name ocean")


async def test_the_owner_at_the_gateway_and_the_one_at_tiktok_have_a_line_each(tiktok: TikTokStudio, tmp_path: Path) -> None:
    await tiktok.ready(drafting())
    choices = "accounts: {tiktok: ocean}, tiktok: {route: gateway, privacy: SELF_ONLY}"
    text = f"channels: {{sea: {{title: Sea, brand_voice: Calm., {choices}}}}}"
    (tmp_path / "channels.yaml").write_text(text)
    own = PostgresAccounts(tiktok.world.async_engine)
    long = "-000rZz9k2mWq3pXy7vTn1bLcDe4fGh6jKs0A"
    await own.confirm(await own.look(TIKTOK, "ocean"), AccountIdentity(long, "Ocean"), "one")
    at = own.at("uploadpost")
    await at.confirm(await at.look(TIKTOK, "ocean"), AccountIdentity("uploadpost:ocean", "ocean at Upload-Post"), "two")
    listed = await asyncio.to_thread(lambda: CliRunner().invoke(app, ["accounts", "list"], env={"COLUMNS": "120"}))
    assert listed.exit_code == 0, listed.output
    lines = [line for line in listed.output.splitlines() if line.startswith("tiktok:ocean")]
    assert [line.split("  ")[0] for line in lines] == ["tiktok:ocean", "tiktok:ocean (gateway)"]
    assert "Ocean (-000rZz9…)" in lines[0]
    assert "ocean at Upload-Post (uploadpost:ocean)" in lines[1]
