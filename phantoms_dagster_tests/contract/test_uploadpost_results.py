"""What Upload-Post says about posts that it published: late public ids, numbers, and whether TikTok still shows them."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from phantoms_dagster.domain.errors import Throttled, Transient
from phantoms_dagster.domain.ports import FoundPost, MetricsPage
from phantoms_dagster.domain.publication import PostRecord
from phantoms_dagster.platforms.tiktok import gateway
from phantoms_dagster.production.publication import publish
from phantoms_dagster.resilience.limits import CallScope
from phantoms_dagster.resilience.scopes import scope_of
from phantoms_dagster_tests.contract.uploadpost_world import UploadPost, a_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[UploadPost]:
    async with a_world(tmp_path) as found:
        yield found


async def published(world: UploadPost, size: int = 20_000, privacy: str = "PUBLIC_TO_EVERYONE", **job: Any) -> PostRecord:
    journal = world.journal()
    await publish(world.publisher(), replace(world.job(size, privacy=privacy), marker=f"m{size}", **job), journal)
    return journal.record


async def look_up(world: UploadPost, record: PostRecord, *, last: bool = False) -> FoundPost | None:
    return await gateway.late_ids(world.tools()).public_id("ocean_facts", record.handle, last=last)


async def read(world: UploadPost, *remote_ids: str) -> list[MetricsPage]:
    return [page async for page in gateway.metrics(world.tools()).pages("ocean_facts", remote_ids)]


# --- late ids


async def test_a_post_without_an_id_of_the_platform_has_that_of_the_request_until_the_status_names_it(world: UploadPost) -> None:
    world.sandbox.config |= {"uploadpost.id_seconds": 900.0, "uploadpost.final_seconds": 300.0}
    record = await published(world)
    assert record.remote_id == world.requests[0].id
    assert await look_up(world, record) is None
    world.sandbox.advance(901)
    found = await look_up(world, record)
    assert found is not None
    assert found.remote_id == world.posts[0]["remote_id"]
    assert (await world.client.get(found.url)).status_code == 200


async def test_an_id_that_only_the_history_names_is_found_there(world: UploadPost) -> None:
    world.sandbox.config["uploadpost.no_ids_in"] = ["status"]
    record = await published(world)
    await published(world, 20_001)
    found = await look_up(world, record)
    assert found is not None
    assert found.remote_id == world.posts[0]["remote_id"]
    assert world.calls("media") == 0


async def test_the_list_of_the_account_is_read_with_the_last_look_up_only_and_must_have_one_match(world: UploadPost) -> None:
    world.sandbox.config["uploadpost.no_ids_in"] = ["status", "history"]
    record = await published(world)
    await published(world, 20_001, caption="Another one")
    assert await look_up(world, record) is None
    found = await look_up(world, record, last=True)
    assert found is not None
    assert found.remote_id == world.posts[0]["remote_id"]
    await published(world, 20_002)  # the same caption
    assert await look_up(world, record, last=True) is None


async def test_a_request_that_upload_post_has_forgotten_is_still_found_in_the_history(world: UploadPost) -> None:
    world.sandbox.config["uploadpost.id_seconds"] = 60.0
    record = await published(world)
    world.sandbox.advance(61)
    world.fault("status", status=404, body='{"status": "not_found"}')
    found = await look_up(world, record)
    assert found is not None
    assert found.remote_id == world.posts[0]["remote_id"]


async def test_a_post_that_is_not_public_keeps_the_requests_id_and_is_never_gone(world: UploadPost) -> None:
    """TikTok gives it no number and does not list it, so looking for one would find that it is gone."""
    record = await published(world, privacy="SELF_ONLY")
    assert record.remote_id == world.requests[0].id
    assert await look_up(world, record, last=True) is None
    [page] = await read(world, str(record.remote_id))
    assert page.gone == ()


# --- numbers


async def test_the_numbers_of_posts_are_read_by_the_platforms_id_and_by_the_requests(world: UploadPost) -> None:
    named = await published(world)
    world.sandbox.config["uploadpost.no_ids_in"] = ["status"]
    unnamed = await published(world, 20_001)
    world.sandbox.advance(86_400)
    pages = await read(world, str(named.remote_id), str(unnamed.remote_id))
    [first, second] = [metrics for page in pages for metrics in page.metrics]
    assert (first.remote_id, second.remote_id) == (named.remote_id, unnamed.remote_id)
    assert first.views
    assert first.views >= (first.likes or 0) > 0
    assert world.calls("analytics") == world.calls("analytics_of_request") == 1


async def test_a_post_that_tiktok_does_not_list_any_more_is_gone_and_one_that_only_has_no_numbers_is_not(world: UploadPost) -> None:
    deleted, broken = await published(world), await published(world, 20_001)
    world.sandbox.config["uploadpost.removed"] = [deleted.remote_id]
    said = '{"success": true, "platforms": {"tiktok": {"success": false, "post_metrics_error": "try later"}}}'
    world.fault("analytics", status=200, body=said, match=str(broken.remote_id))
    [page] = await read(world, str(deleted.remote_id), str(broken.remote_id))
    assert page.gone == (deleted.remote_id,)
    assert page.failed == {broken.remote_id: "try later"}
    [gone, public] = await gateway.post_reader(world.tools()).look("ocean_facts", [str(deleted.remote_id), str(broken.remote_id)])
    assert (gone.state, public.state) == ("gone", "public")
    assert public.url.endswith(str(broken.remote_id))
    assert public.published_at is not None


async def test_a_request_that_is_forgotten_is_no_post_that_is_gone(world: UploadPost) -> None:
    unknown = str(uuid.uuid4())
    [page] = await read(world, unknown)
    assert page.gone == ()
    assert page.failed == {unknown: "Upload-Post does not know the post"}


async def test_a_list_of_several_pages_is_read_to_its_end_before_a_post_is_gone(world: UploadPost) -> None:
    world.sandbox.config["uploadpost.daily_posts"] = None
    first = await published(world)
    for size in range(20_001, 20_022):
        world.sandbox.advance(1)
        await published(world, size)
    [standing, missing] = await gateway.post_reader(world.tools()).look(
        "ocean_facts", [str(first.remote_id), "7300000000000000000"]
    )
    assert (standing.state, missing.state) == ("public", "gone")
    assert world.calls("media") == 2


async def test_a_list_that_fails_in_the_middle_proves_nothing(world: UploadPost) -> None:
    await published(world)
    world.fault("media", status=200, body='{"success": true, "media": [], "next_cursor": "x"}', times=None)
    with pytest.raises(Transient, match="without an end"):
        await gateway.post_reader(world.tools()).look("ocean_facts", ["7300000000000000000"])


async def test_live_analytics_have_a_limit_of_their_own(world: UploadPost) -> None:
    record = await published(world)
    [page] = await read(world, "v_pub_file~1")
    assert page.gone == (), "a publish_id is in no list"
    for _ in range(99):
        await read(world, str(record.remote_id))
    with pytest.raises(Throttled):
        await read(world, str(record.remote_id))
    url = f"{world.service().base_url}/uploadposts/post-analytics/{record.remote_id}"
    assert scope_of("uploadpost")(httpx.Request("GET", url)) == CallScope("uploadpost_metrics", pool="metrics_uploadpost")
