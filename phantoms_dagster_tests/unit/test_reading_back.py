"""The readback: each account by itself, each page stored as it comes, and less often as a post gets older."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import timedelta

import pytest

from phantoms_dagster.domain.errors import NotYet, Transient
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Metrics, MetricsPage
from phantoms_dagster.domain.readback import CADENCE, FAILED, GONE_AGAIN, GONE_ONCE, PostReading, PublishedRow, pause_after
from phantoms_dagster.production.performance import ReadbackResult, read_back

HOUR = timedelta(hours=1)


class Reader:
    """A platform: a page for each post that it knows, then an error, if it has one."""

    provider = "test"

    def __init__(
        self, platform: Platform, known: Sequence[str] = (), *, error: Exception | None = None, failing: Sequence[str] = ()
    ) -> None:
        self.platform = platform
        self.asked_without: list[Collection[str]] = []
        self._known, self._error, self._failing = known, error, failing

    async def pages(self, account: str, remote_ids: Sequence[str], *, without: Collection[str] = ()) -> AsyncIterator[MetricsPage]:
        self.asked_without.append(without)
        for i in remote_ids:
            if i in self._failing:
                yield MetricsPage(failed={i: "odd"})
            elif i in self._known:
                yield MetricsPage((Metrics(i, views=10),), unsupported=frozenset({"watch"}))
            elif self._error is None:
                yield MetricsPage(gone=(i,))
        if self._error is not None:
            raise self._error


def post(number: int, platform: Platform, remote_id: str, *, age: timedelta = HOUR, gone: bool = False) -> PublishedRow:
    return PublishedRow(number, f"v{number}", platform, "main", remote_id, age, gone)


async def turn(posts: Sequence[PublishedRow], *readers: Reader) -> tuple[ReadbackResult, list[PostReading]]:
    kept: list[PostReading] = []

    async def keep(readings: Sequence[PostReading]) -> None:
        kept.extend(readings)

    return await read_back(posts, {reader.platform: reader for reader in readers}, keep, {}), kept


@pytest.mark.parametrize("error", [Transient("down", provider="test"), RuntimeError("a fault of ours"), KeyError("x")])
async def test_an_account_that_cannot_be_read_ends_no_other_accounts_readback(error: Exception) -> None:
    """From 23 posts on one account, Instagram's numbers were never stored again, and the tables of all platforms stopped."""
    posts = [post(1, Platform("youtube"), "a"), post(2, Platform("tiktok"), "b")]
    read, kept = await turn(posts, Reader(Platform("youtube"), ["a"]), Reader(Platform("tiktok"), error=error))
    assert [(r.post_id, r.metrics) for r in kept] == [(1, Metrics("a", views=10))]
    assert list(read.problems) == ["tiktok:main"]
    assert "down" in read.problems["tiktok:main"] or type(error).__name__ in read.problems["tiktok:main"]


async def test_what_was_read_before_an_error_is_kept() -> None:
    posts = [post(1, Platform("instagram"), "a"), post(2, Platform("instagram"), "b")]
    read, kept = await turn(posts, Reader(Platform("instagram"), ["a"], error=Transient("down", provider="test")))
    assert [r.post_id for r in kept] == [1]
    assert read.problems == {"instagram:main": "down"}


async def test_a_full_pool_is_not_reported_for_an_account_of_which_something_was_read() -> None:
    posts = [post(1, Platform("instagram"), "a"), post(2, Platform("instagram"), "b")]
    full = NotYet("the rate is used up", retry_after=600)
    read, _ = await turn(posts, Reader(Platform("instagram"), ["a"], error=full))
    assert (read.problems, read.waits) == ({}, {"instagram:main": "the rate is used up"})
    read, _ = await turn(posts, Reader(Platform("instagram"), error=full))
    assert (read.problems, read.waits) == ({"instagram:main": "the rate is used up"}, {})


async def test_a_post_that_is_gone_is_marked_and_asked_about_again_ever_more_rarely() -> None:
    posts = [post(1, Platform("youtube"), "a"), post(2, Platform("youtube"), "b", gone=True)]
    read, kept = await turn(posts, Reader(Platform("youtube")))
    assert [(r.gone, r.again, r.metrics) for r in kept] == [(True, GONE_ONCE, None), (True, GONE_AGAIN, None)]
    assert (read.problems, [a.gone for a in read.accounts]) == ({}, [2])


async def test_a_post_that_fails_by_itself_is_reported_and_the_account_only_when_every_post_does() -> None:
    posts = [post(1, Platform("youtube"), "a"), post(2, Platform("youtube"), "b")]
    read, kept = await turn(posts, Reader(Platform("youtube"), ["b"], failing=["a"]))
    assert [(r.post_id, r.problem, r.again) for r in kept if r.problem] == [(1, "odd", FAILED)]
    assert read.problems == {}
    read, _ = await turn(posts, Reader(Platform("youtube"), failing=["a", "b"]))
    assert read.problems == {"youtube:main": "2 posts failed, the first: odd"}


async def test_metrics_that_an_account_does_not_have_are_learnt_and_passed_on() -> None:
    reader = Reader(Platform("instagram"), ["a"])

    async def keep(_: Sequence[PostReading]) -> None: ...

    account = (Platform("instagram"), "main")
    read = await read_back(
        [post(1, *(Platform("instagram"), "a"))], {Platform("instagram"): reader}, keep, {account: frozenset({"x"})}
    )
    assert reader.asked_without == [{"x"}]
    assert read.accounts[0].unsupported == {"x", "watch"}


@pytest.mark.parametrize(
    ("age", "pause"),
    [
        (timedelta(0), timedelta(minutes=55)),
        (timedelta(hours=23, minutes=59), timedelta(minutes=55)),
        (timedelta(days=1), timedelta(hours=5, minutes=55)),
        (timedelta(days=7), timedelta(hours=23, minutes=55)),
        (timedelta(days=30), timedelta(days=7, minutes=-5)),
        (timedelta(days=90), timedelta(days=28, minutes=-5)),
    ],
)
def test_a_post_is_read_hourly_in_its_first_day_and_then_ever_more_rarely(age: timedelta, pause: timedelta) -> None:
    assert pause_after(age) == pause


def test_a_post_of_ninety_days_was_read_less_than_a_hundred_times() -> None:
    age, reads = timedelta(0), 0
    while age < timedelta(days=90):
        reads += 1
        age += pause_after(age) + timedelta(minutes=5)
    assert 70 < reads < 100
    assert [pause for _, pause in CADENCE] == sorted(pause for _, pause in CADENCE)
