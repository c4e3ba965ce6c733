"""Group commit: many writers, few commits, and each writer gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from phantoms_dagster.domain.errors import StoreAway
from phantoms_dagster.store.group_commit import MOST_ITEMS, GroupCommit


class Table:
    """Remembers its batches; doubles what it is given. It waits for `gate`, and refuses `poison`."""

    def __init__(self, poison: int | None = None) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._poison = poison

    async def write(self, items: Sequence[int]) -> list[int]:
        await self.gate.wait()
        self.batches.append(list(items))
        if self._poison in items:
            raise RuntimeError("refused")
        return [2 * item for item in items]


async def test_writers_that_come_together_share_a_commit_and_each_gets_its_own_answer() -> None:
    table = Table()
    commit = GroupCommit(table.write)
    assert await asyncio.gather(*(commit(n) for n in range(50))) == [2 * n for n in range(50)]
    assert table.batches == [list(range(50))]


async def test_a_writer_resumes_only_when_its_item_is_written() -> None:
    table = Table()
    table.gate.clear()
    commit = GroupCommit(table.write, linger=0)
    writer = asyncio.create_task(commit(1))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not writer.done()
    table.gate.set()
    assert await writer == 2


async def test_what_comes_during_a_commit_goes_into_the_next_one() -> None:
    table = Table()
    table.gate.clear()
    commit = GroupCommit(table.write, linger=0)
    first = asyncio.create_task(commit(1))
    for _ in range(5):
        await asyncio.sleep(0)
    later = [asyncio.create_task(commit(n)) for n in (2, 3)]
    await asyncio.sleep(0)
    table.gate.set()
    assert await asyncio.gather(first, *later) == [2, 4, 6]
    assert table.batches == [[1], [2, 3]]


async def test_a_crowd_is_written_in_batches_of_bounded_size() -> None:
    table = Table()
    commit = GroupCommit(table.write)
    count = 2 * MOST_ITEMS + 1
    assert await asyncio.gather(*(commit(n) for n in range(count))) == [2 * n for n in range(count)]
    assert [len(batch) for batch in table.batches] == [MOST_ITEMS, MOST_ITEMS, 1]


async def test_only_the_writer_of_what_cannot_be_written_hears_of_it_and_the_next_batch_goes_on() -> None:
    table = Table(poison=7)
    commit = GroupCommit(table.write)
    answers = await asyncio.gather(*(commit(n) for n in (6, 7, 8)), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["12", "refused", "16"]
    assert table.batches == [[6, 7, 8], [6], [7], [8]]
    assert await commit(9) == 18


async def test_while_the_store_is_away_no_item_is_tried_alone() -> None:
    batches: list[int] = []

    async def write(items: Sequence[int]) -> list[int]:
        batches.append(len(items))
        raise StoreAway("gone")

    commit = GroupCommit(write)
    answers = await asyncio.gather(*(commit(n) for n in range(3)), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["PostgreSQL is away: gone"] * 3
    assert batches == [3]


async def test_the_store_going_away_while_items_are_written_alone_is_waited_for_once() -> None:
    tried: list[list[int]] = []

    async def write(items: Sequence[int]) -> list[int]:
        tried.append(list(items))
        if len(items) > 1:
            raise ValueError("one of them")
        raise StoreAway("gone")

    commit = GroupCommit(write)
    answers = await asyncio.gather(*(commit(n) for n in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreAway] * 3
    assert tried == [[0, 1, 2], [0]]


async def test_a_cancelled_writer_cancels_no_other() -> None:
    table = Table()
    commit = GroupCommit(table.write)
    one, two = asyncio.create_task(commit(1)), asyncio.create_task(commit(2))
    await asyncio.sleep(0)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    assert await two == 4
    assert table.batches == [[1, 2]]


async def test_writers_that_come_after_a_pause_are_served_too() -> None:
    table = Table()
    commit = GroupCommit(table.write, linger=0)
    assert await commit(1) == 2
    assert await commit(2) == 4
    assert table.batches == [[1], [2]]
