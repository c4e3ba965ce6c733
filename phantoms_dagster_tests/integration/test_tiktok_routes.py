"""Routes onto TikTok in the real ledger: a draft that waits for its creator, and a route that stays with its post."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from phantoms_dagster.domain.claims import Claim, StageTask
from phantoms_dagster.domain.errors import NotYet
from phantoms_dagster.domain.models import Channel, Platform
from phantoms_dagster.platforms.tiktok.choices import TikTokChoices
from phantoms_dagster.platforms.tiktok.publisher import TikTokPublisher
from phantoms_dagster.production.stages.post import Publish
from phantoms_dagster.sandbox.core import Sandbox, application
from phantoms_dagster.sandbox.tiktok.routes import routes
from phantoms_dagster.store.decisions import Decisions
from phantoms_dagster.store.ledgers import PostgresLedgers
from phantoms_dagster_tests.integration.publishing_world import FakeTokens, Studio, open_studio
from phantoms_dagster_tests.integration.stage_world import CHANNEL, World, media_file, open_world

TIKTOK = Platform("tiktok")


def drafting(route: str = "inbox") -> Channel:
    choices = TikTokChoices.model_validate({"route": route, "privacy": "SELF_ONLY"})
    return CHANNEL.model_copy(update={"accounts": {TIKTOK: "ocean"}, "tiktok": choices})


class TikTokStudio:
    """The studio, with TikTok's stand-in."""

    def __init__(self, studio: Studio, sandbox: Sandbox, base_url: str) -> None:
        self.studio = studio
        self.world = studio.world
        self.sandbox = sandbox
        self.ledgers = PostgresLedgers(studio.world.async_engine)
        publisher = TikTokPublisher(client=studio.client, base_url=base_url, tokens=FakeTokens(), clock=studio.clock, sandbox=True)
        self.publish = Publish(publishers={TIKTOK: publisher}, media=studio.store, ledgers=self.ledgers, clock=studio.clock)

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
async def tiktok(world: World, tmp_path: Path) -> AsyncIterator[TikTokStudio]:
    sandbox = Sandbox(seed=1)
    sandbox.config["tiktok.check_media"] = False
    async with open_studio(world, tmp_path) as studio, TestServer(application(sandbox, [routes(sandbox)])) as server:
        studio.clock.sandbox = sandbox
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


async def test_a_handed_over_post_leaves_its_account_free_for_the_next_one(tiktok: TikTokStudio) -> None:
    for owner in ("first", "second"):
        with pytest.raises(NotYet, match="waiting for the creator"):
            await tiktok.post(await tiktok.ready(drafting()), owner)
    assert [row["state"] for row in tiktok.world.rows("SELECT state FROM phantoms.posts")] == ["handed_over"] * 2


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
