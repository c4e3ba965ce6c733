"""TikTok's numbers, read back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from phantoms_dagster.domain.errors import (
    Permanent,
)
from phantoms_dagster.production.publication import publish
from phantoms_dagster_tests.contract.tiktok_world import (
    World,
    a_world,
)
from phantoms_dagster_tests.reading import metrics, whole


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as made:
        yield made


async def test_metrics_are_asked_for_in_groups_of_twenty_and_only_grow(world: World) -> None:
    world.sandbox.config |= {"tiktok.rate_limits": False, "tiktok.daily_posts": None}
    ids = [(await publish(world.publisher(), world.job(), world.journal())).remote_id for _ in range(21)]
    before = world.calls("query")
    first = await metrics(world.reader(), "ocean_facts", ids)
    assert [m.remote_id for m in first] == ids
    assert world.calls("query") - before == 2
    world.sandbox.advance(40 * 3_600)
    second = await metrics(world.reader(), "ocean_facts", ids)
    assert all((a.views or 0) < (b.views or 0) and (a.likes or 0) <= (b.likes or 0) for a, b in zip(first, second, strict=True))
    assert {m.watch_seconds for m in second} == {None}


async def test_posts_that_tiktok_does_not_show_are_absent_and_a_publish_id_does_not_spoil_the_group(world: World) -> None:
    post = await publish(world.publisher(), world.job(), world.journal())
    ids = ["v_pub_file~v2-1.17", "7999999999999999999", post.remote_id, post.remote_id]
    read = await whole(world.reader().pages("ocean_facts", ids))
    assert [m.remote_id for m in read.metrics] == [post.remote_id]
    # A publish_id may yet become a video id. It was not asked about, so it must not count as gone.
    assert read.gone == ("7999999999999999999",)
    assert await metrics(world.reader(), "somebody_else", [post.remote_id]) == []


async def test_a_number_that_tiktok_leaves_out_is_none_not_zero(world: World) -> None:
    world.fault("query", status=200, body='{"data":{"videos":[{"id":"7","view_count":0}]},"error":{"code":"ok"}}')
    (found,) = await metrics(world.reader(), "ocean_facts", ["7"])
    assert (found.views, found.likes) == (0, None)


async def test_metrics_of_an_account_whose_token_is_refused_are_an_error_not_an_empty_list(world: World) -> None:
    world.tokens.revoked.add("ocean_facts")
    with pytest.raises(Permanent, match="reconnect"):
        await metrics(world.reader(), "ocean_facts", ["7"])
