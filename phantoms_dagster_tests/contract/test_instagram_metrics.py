"""The Instagram metrics reader against the stand-in: numbers in, gaps as None, an unsupported metric hides no other."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from phantoms_dagster.domain.errors import Disconnected, Throttled, Transient
from phantoms_dagster.domain.ports import Metrics
from phantoms_dagster.platforms.instagram.metrics import InstagramMetricsReader
from phantoms_dagster.production.publication import publish
from phantoms_dagster.sandbox.instagram.insights import REEL_METRICS, reel, value
from phantoms_dagster_tests.contract.publishing_kit import FakeJournal
from phantoms_dagster_tests.contract.test_instagram import ACCOUNT, Stand, make_job, standing
from phantoms_dagster_tests.reading import metrics as numbers_of
from phantoms_dagster_tests.reading import whole

DAY = 86_400


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with standing() as made:
        yield made


def reader(stand: Stand, **changes: Any) -> InstagramMetricsReader:
    given = {"client": stand.client, "base_url": f"{stand.origin}/instagram", "tokens": stand.tokens, "clock": stand.clock}
    return InstagramMetricsReader(**{**given, **changes})


async def posted(stand: Stand, folder: Path) -> str:
    return (await publish(stand.publisher(), make_job(folder), FakeJournal())).remote_id


async def test_the_numbers_of_a_reel_are_read_and_watch_time_is_in_seconds(stand: Stand, tmp_path: Path) -> None:
    number = await posted(stand, tmp_path)
    stand.sandbox.advance(5 * DAY)
    (metrics,) = await numbers_of(reader(stand), ACCOUNT, [number])
    state = stand.sandbox.state["instagram"]
    fate = reel(1, number, 24.0)
    assert metrics.views is not None
    assert metrics.views > 0
    assert abs(metrics.views - value(fate, "views", 5 * DAY)) <= 5
    assert metrics.watch_seconds == pytest.approx(metrics.views * fate.watch_ms / 1000)
    assert None not in (metrics.likes, metrics.comments, metrics.shares)
    assert state.media[number].account == ACCOUNT


async def test_numbers_only_grow_and_are_the_same_for_the_same_seed(stand: Stand, tmp_path: Path) -> None:
    number = await posted(stand, tmp_path)
    seen: list[Metrics] = []
    for _ in range(6):
        stand.sandbox.advance(8 * 3_600)
        seen += await numbers_of(reader(stand), ACCOUNT, [number])
    views = [m.views or 0 for m in seen]
    assert views == sorted(views)
    assert views[0] < views[-1]
    fate = reel(7, number, 24.0)
    for metric in REEL_METRICS:
        curve = [value(fate, metric, hours * 3_600.0) for hours in range(200)]
        assert curve == sorted(curve)
        assert curve == [value(reel(7, number, 24.0), metric, hours * 3_600.0) for hours in range(200)]


async def test_numbers_that_are_not_there_yet_are_none_not_zero(stand: Stand, tmp_path: Path) -> None:
    stand.sandbox.config["instagram.insights_delay_seconds"] = 2 * DAY
    number = await posted(stand, tmp_path)
    assert await numbers_of(reader(stand), ACCOUNT, [number]) == [Metrics(remote_id=number)]


async def test_a_post_that_is_gone_is_absent(stand: Stand, tmp_path: Path) -> None:
    number = await posted(stand, tmp_path)
    stand.sandbox.advance(DAY)
    answers = await numbers_of(reader(stand, at_once=1), ACCOUNT, ["18059999999999999", number, "1"])
    assert [m.remote_id for m in answers] == [number]


async def test_a_retired_metric_does_not_hide_the_others(stand: Stand, tmp_path: Path) -> None:
    number = await posted(stand, tmp_path)
    stand.sandbox.advance(DAY)
    refusal = json.dumps({"error": {"message": "(#100) metric[3] must be one of the following values", "code": 100}})
    stand.fail("insights", status=400, body=refusal, match="comments", times=None)
    (metrics,) = await numbers_of(reader(stand), ACCOUNT, [number])
    assert metrics.comments is None
    assert None not in (metrics.views, metrics.likes, metrics.shares, metrics.watch_seconds)


async def test_a_reel_without_watch_time_keeps_its_other_numbers(stand: Stand, tmp_path: Path) -> None:
    number = await posted(stand, tmp_path)
    stand.sandbox.advance(DAY)
    stand.refuse("insights", 100, match="ig_reels_video_view_total_time")
    (metrics,) = await numbers_of(reader(stand), ACCOUNT, [number])
    assert metrics.watch_seconds is None
    assert metrics.views is not None


async def test_metrics_that_a_reel_cannot_have_fail_the_whole_call_of_the_sandbox(stand: Stand, tmp_path: Path) -> None:
    number = await posted(stand, tmp_path)
    for metric in ("plays", "impressions", "facebook_views"):
        answer = await stand.client.get(
            f"{stand.origin}/instagram/v26.0/{number}/insights",
            params={"metric": f"views,{metric}", "access_token": f"sandbox-{ACCOUNT}"},
        )
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == 100


@pytest.mark.parametrize(("code", "kind"), [(190, Disconnected), (4, Throttled), (2, Transient)])
async def test_a_refused_read_is_an_error_not_a_gap(stand: Stand, tmp_path: Path, code: int, kind: type[Exception]) -> None:
    number = await posted(stand, tmp_path)
    stand.refuse("insights", code)
    with pytest.raises(kind) as refused:
        await numbers_of(reader(stand), ACCOUNT, [number])
    assert type(refused.value) is kind


async def test_one_reel_that_fails_hides_none_of_its_neighbours(stand: Stand, tmp_path: Path) -> None:
    """One failing call threw away what all others had answered."""
    numbers = [await posted(stand, tmp_path) for _ in range(6)]
    stand.sandbox.advance(DAY)
    stand.fail("insights", status=500, match=numbers[2], times=None)
    read = await whole(reader(stand).pages(ACCOUNT, numbers))
    assert [m.remote_id for m in read.metrics] == [n for n in numbers if n != numbers[2]]
    assert list(read.failed) == [numbers[2]]


async def test_what_was_read_before_the_account_was_throttled_is_handed_over(stand: Stand, tmp_path: Path) -> None:
    numbers = [await posted(stand, tmp_path) for _ in range(3)]
    stand.sandbox.advance(DAY)
    stand.refuse("insights", 4, match=numbers[2])
    pages = reader(stand, at_once=1).pages(ACCOUNT, numbers)
    seen = [m.remote_id for _ in range(2) for m in (await anext(pages)).metrics]
    assert seen == numbers[:2]
    assert (await anext(pages)).metrics == ()
    with pytest.raises(Throttled):
        await anext(pages)


async def test_a_metric_that_no_reel_of_the_account_has_is_reported_and_not_requested_again(stand: Stand, tmp_path: Path) -> None:
    numbers = [await posted(stand, tmp_path) for _ in range(2)]
    stand.sandbox.advance(DAY)
    refusal = json.dumps({"error": {"message": "(#100) not available", "code": 100}})
    stand.fail("insights", status=400, body=refusal, match="ig_reels_video_view_total_time", times=None)
    first = await whole(reader(stand).pages(ACCOUNT, numbers))
    assert first.unsupported == {"ig_reels_video_view_total_time"}
    before = stand.sandbox.calls["instagram.insights"]
    again = await whole(reader(stand).pages(ACCOUNT, numbers, without=first.unsupported))
    assert stand.sandbox.calls["instagram.insights"] - before == len(numbers)
    assert all(m.views is not None for m in again.metrics)
    assert again.unsupported == set()


async def test_a_metric_that_one_reel_lacks_is_still_asked_of_the_others(stand: Stand, tmp_path: Path) -> None:
    lacking, having = [await posted(stand, tmp_path) for _ in range(2)]
    stand.sandbox.advance(DAY)
    refusal = json.dumps({"error": {"message": "(#100) not available", "code": 100}})
    stand.fail("insights", status=400, body=refusal, match=f"{lacking}/insights?metric=ig_reels_video", times=None)
    read = await whole(reader(stand).pages(ACCOUNT, [lacking, having]))
    assert [m.watch_seconds is None for m in read.metrics] == [True, False]
    assert read.unsupported == set()


async def test_too_few_viewers_is_a_missing_number_and_no_missing_permission(stand: Stand, tmp_path: Path) -> None:
    number = await posted(stand, tmp_path)
    refusal = json.dumps({"error": {"message": "(#10) Not enough viewers for the media to show insights", "code": 10}})
    stand.fail("insights", status=400, body=refusal, times=None)
    assert await numbers_of(reader(stand), ACCOUNT, [number]) == [Metrics(remote_id=number)]
