"""How each platform's adapter sees a post after its publication, and what it deletes, against the stand-ins over HTTP."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from aiohttp.test_utils import TestServer

from phantoms_dagster.domain.errors import Transient
from phantoms_dagster.domain.ports import PostStanding
from phantoms_dagster.platforms.bluesky.api import Calls
from phantoms_dagster.platforms.bluesky.posts import BlueskyPosts
from phantoms_dagster.platforms.folder.posts import FolderPosts
from phantoms_dagster.platforms.folder.publisher import FolderPublisher
from phantoms_dagster.platforms.instagram.api import Graph, no_secret
from phantoms_dagster.platforms.instagram.posts import InstagramPostReader
from phantoms_dagster.platforms.tiktok.posts import TikTokPostReader
from phantoms_dagster.platforms.youtube.identity import YouTubeIdentity
from phantoms_dagster.platforms.youtube.posts import YouTubePosts
from phantoms_dagster.platforms.youtube.publisher import YouTubePublisher
from phantoms_dagster.production.publication import publish
from phantoms_dagster.production.takedown import take_down
from phantoms_dagster.sandbox.core import Fault, Sandbox, application
from phantoms_dagster.sandbox.youtube.routes import routes
from phantoms_dagster_tests.contract.bluesky_world import ACCOUNT, make_job, world
from phantoms_dagster_tests.contract.publishing_kit import FakeJournal, SandboxClock, SandboxTokens
from phantoms_dagster_tests.contract.test_instagram import make_job as reel_job
from phantoms_dagster_tests.contract.test_instagram import standing
from phantoms_dagster_tests.contract.tiktok_world import a_world


def seen(found: PostStanding) -> tuple[str, str]:
    return found.state, found.evidence


async def test_youtube_says_that_a_video_is_private_rejected_blocked_or_gone_and_deletes_it(tmp_path: Path) -> None:
    sandbox = Sandbox(seed=1)
    async with TestServer(application(sandbox, [routes(sandbox)])) as server, httpx.AsyncClient() as client:
        clock, tokens = SandboxClock(sandbox), SandboxTokens()
        given = {"client": client, "base_url": str(server.make_url("")).rstrip("/"), "tokens": tokens, "clock": clock}
        job = make_job(tmp_path)
        post = await publish(YouTubePublisher(**given, sandbox=True), job, FakeJournal(clock=clock))  # type: ignore[arg-type]
        adapter = YouTubePosts(**given, sandbox=True)  # type: ignore[arg-type]
        video = post.remote_id

        async def look() -> PostStanding:
            [found] = await adapter.look(ACCOUNT, [video])
            return found

        public = await look()
        assert (public.state, public.url, public.published_at) == ("public", post.url, post.published_at)
        owner = await YouTubeIdentity(**given).read(ACCOUNT)  # type: ignore[arg-type]
        assert public.owner == owner.subject
        sandbox.config["youtube.region_restrictions"] = {video: {"blocked": ["DE", "AT"]}}
        assert seen(await look()) == ("blocked", "regionRestriction is blocked: DE, AT")
        sandbox.config["youtube.rejected_videos"] = {video: "copyright"}
        assert seen(await look()) == ("blocked", "uploadStatus is rejected (copyright)")
        sandbox.config.clear()
        change = {"id": video, "status": {"privacyStatus": "private"}}
        headers = {"Authorization": f"Bearer {await tokens.token(adapter.platform, ACCOUNT)}"}
        url = f"{given['base_url']}/youtube/v3/videos?part=status"
        assert (await client.put(url, json=change, headers=headers)).is_success
        assert seen(await look()) == ("private", "privacyStatus is private")
        sandbox.faults.append(Fault("youtube.delete", kind="drop_after", times=1))
        readers = removers = {adapter.platform: adapter}
        evidence = await take_down(adapter.platform, ACCOUNT, video, removers, readers)
        assert evidence.endswith("then videos.list does not contain it")
        assert seen(await look())[0] == "gone"
        assert await adapter.remove(ACCOUNT, video) == "videos.delete answered that there is no such video"
        assert [entry["remote_id"] for entry in sandbox.ledger if entry["kind"] == "youtube.deleted"] == [video]


async def test_a_deletion_that_never_reached_youtube_does_not_count(tmp_path: Path) -> None:
    sandbox = Sandbox(seed=1)
    async with TestServer(application(sandbox, [routes(sandbox)])) as server, httpx.AsyncClient() as client:
        clock = SandboxClock(sandbox)
        given = {"client": client, "base_url": str(server.make_url("")).rstrip("/"), "tokens": SandboxTokens(), "clock": clock}
        post = await publish(YouTubePublisher(**given), make_job(tmp_path), FakeJournal(clock=clock))  # type: ignore[arg-type]
        adapter = YouTubePosts(**given)  # type: ignore[arg-type]
        sandbox.faults.append(Fault("youtube.delete", kind="drop_before"))
        with pytest.raises(Transient):
            await take_down(adapter.platform, ACCOUNT, post.remote_id, {adapter.platform: adapter}, {adapter.platform: adapter})
        [found] = await adapter.look(ACCOUNT, [post.remote_id])
        assert found.state == "public"


async def test_bluesky_finds_a_record_by_its_key_and_deletes_it_once(tmp_path: Path) -> None:
    async with world() as sky:
        post = await publish(sky.publisher(), make_job(tmp_path), FakeJournal(clock=sky.clock))
        base = f"{sky.origin}/bluesky"
        adapter = BlueskyPosts(Calls(client=sky.client, base_url=base, tokens=SandboxTokens(), clock=sky.clock), site=base)
        [by_uri, by_key, other] = await adapter.look(ACCOUNT, [post.remote_id, post.remote_id.rsplit("/", 1)[-1], "3l6oveex3ii2l"])
        assert by_uri == by_key
        assert (by_uri.remote_id, by_uri.state, by_uri.url) == (post.remote_id, "public", post.url)
        assert other.state == "gone"
        for _ in range(2):
            assert await adapter.remove(ACCOUNT, post.remote_id) == "deleteRecord succeeded"
        [gone] = await adapter.look(ACCOUNT, [post.remote_id])
        assert gone.state == "gone"
        assert [entry["remote_id"] for entry in sky.sandbox.ledger if entry["kind"] == "bluesky.deleted"] == [post.remote_id]


async def test_tiktok_shows_public_videos_and_nothing_of_the_others(tmp_path: Path) -> None:
    async with a_world(tmp_path) as made:
        post = await made.persist(made.job(), made.journal())
        adapter = TikTokPostReader(client=made.client, base_url=made.base_url, tokens=SandboxTokens(), sandbox=True)
        [shown, waiting] = await adapter.look("ocean_facts", [post.remote_id, "v_pub_file~v2-1.123"])
        assert (shown.state, shown.url) == ("public", post.url)
        assert waiting.state == "gone"
        made.sandbox.config["tiktok.hidden_posts"] = [post.remote_id]
        [hidden] = await adapter.look("ocean_facts", [post.remote_id])
        assert seen(hidden) == ("gone", "video/query does not contain it: deleted, not public, or taken down")


async def test_instagram_finds_a_reel_by_its_id_and_by_its_url_and_sees_a_claim_and_a_deletion(tmp_path: Path) -> None:
    async with standing() as stand:
        post = await publish(stand.publisher(), reel_job(tmp_path), FakeJournal(clock=stand.clock))
        graph = Graph(
            client=stand.client, base_url=f"{stand.origin}/instagram", version="v26.0", tokens=stand.tokens, app_secret=no_secret
        )
        adapter, account = InstagramPostReader(graph), "ocean.facts"
        [found] = await adapter.look(account, [post.remote_id])
        assert (found.state, found.url, found.published_at) == ("public", post.url, post.published_at)
        assert (await adapter._with_code(account, post.url.rsplit("/", 1)[-1]) or {})["id"] == post.remote_id
        [unknown] = await adapter.look(account, ["DB1xYzAbCdE"])
        assert unknown.state == "gone"
        stand.sandbox.config["instagram.claimed_media"] = [post.remote_id]
        [claimed] = await adapter.look(account, [post.remote_id])
        assert claimed.state == "blocked"
        stand.sandbox.config["instagram.deleted_media"] = [post.remote_id]
        [deleted] = await adapter.look(account, [post.remote_id])
        assert deleted.state == "gone"
        assert deleted.evidence.startswith("Instagram answers with error ")


async def test_the_outbox_forgets_a_folder_and_never_one_outside_it(tmp_path: Path) -> None:
    outbox = tmp_path / "outbox"
    async with world() as sky:
        post = await publish(FolderPublisher(outbox, clock=sky.clock), make_job(tmp_path), FakeJournal(clock=sky.clock))
    adapter = FolderPosts(outbox)
    [there] = await adapter.look(ACCOUNT, [post.remote_id])
    assert (there.state, there.url) == ("public", post.url)
    with pytest.raises(Transient, match="is not in the outbox"):
        await adapter.remove(ACCOUNT, "../elsewhere")
    assert await adapter.remove(ACCOUNT, post.remote_id) == "the folder was deleted"
    assert await adapter.remove(ACCOUNT, post.remote_id) == "there was no such folder"
    [gone] = await adapter.look(ACCOUNT, [post.remote_id])
    assert gone.state == "gone"
