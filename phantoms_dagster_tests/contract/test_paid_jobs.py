"""A paid job that went wrong: what the engine asks, what it books, and when it may order another."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from phantoms_dagster.domain.errors import IllegalTransition, NotYet, Permanent, Transient, Unknown
from phantoms_dagster.domain.paid_job import MAY_BE_PAID, PAID, Fetch, NotBilled, PaidState, WrittenOff
from phantoms_dagster.media import local_renderer
from phantoms_dagster.sandbox.core import Fault
from phantoms_dagster_tests.contract import paid_world
from phantoms_dagster_tests.contract.paid_world import LOST_SECONDS, PRICE, Paid, bills
from phantoms_dagster_tests.contract.publishing_kit import FakePaidJournal

Opened = Callable[[Path], AbstractAsyncContextManager[Paid]]


def orders(paid: Paid) -> int:
    """How many orders left."""
    return sum(bills(request) for request in paid.transport.requests)


async def left_at(paid: Paid, state: PaidState) -> FakePaidJournal:
    """The ledger of a job that was done, as it would be had it stopped in that state."""
    journal = paid.journal()
    await paid.carry(journal)
    named = journal.record.remote_id if state in PAID else None
    return paid.journal(replace(journal.record, state=state, remote_id=named))


@pytest.mark.parametrize("opened", [paid_world.findable, paid_world.shotstack])
@pytest.mark.parametrize("state", PAID)
async def test_a_job_that_is_paid_is_fetched_again_and_never_ordered_again(
    tmp_path: Path, opened: Opened, state: PaidState
) -> None:
    async with opened(tmp_path) as paid:
        journal = await left_at(paid, state)
        await paid.carry(journal)
        paid.assert_once(journal)
        assert orders(paid) == 1
        assert journal.states == [PaidState.DONE]


@pytest.mark.parametrize("state", MAY_BE_PAID)
async def test_a_job_that_may_be_paid_is_found_by_our_own_id(tmp_path: Path, state: PaidState) -> None:
    async with paid_world.findable(tmp_path) as paid:
        journal = await left_at(paid, state)
        await paid.carry(journal)
        paid.assert_once(journal)
        assert (orders(paid), journal.states) == (1, [PaidState.SUBMITTED, PaidState.DONE])


@pytest.mark.parametrize("state", MAY_BE_PAID)
async def test_a_job_that_cannot_be_found_is_written_off_after_its_time_and_not_before(tmp_path: Path, state: PaidState) -> None:
    async with paid_world.shotstack(tmp_path) as paid:
        journal = await left_at(paid, state)
        for _ in range(3):
            with pytest.raises(Unknown) as caught:
                await paid.carry(journal)
            assert (caught.value.code, orders(paid)) == ("render_unknown", 1)
            assert journal.record.state is PaidState.UNKNOWN
            paid.sandbox.advance(LOST_SECONDS / 4)
        paid.sandbox.advance(LOST_SECONDS / 4 + 10)
        with pytest.raises(Transient) as lost:
            await paid.carry(journal)
        assert (lost.value.code, orders(paid)) == ("render_lost", 1)
        assert (journal.record.state, journal.record.remote_id) == (PaidState.INTENT, None)
        assert isinstance(journal.proofs[-1], WrittenOff)
        assert journal.proofs[-1].usd == PRICE
        await paid.carry(journal)
        assert (orders(paid), journal.record.remote_id) == (2, paid.billed[-1]["id"])


@pytest.mark.parametrize(("status", "error"), [(400, Permanent), (401, Permanent), (403, Permanent), (429, Transient)])
async def test_an_order_that_is_refused_in_so_many_words_may_be_sent_again_at_once(
    tmp_path: Path, status: int, error: type[Exception]
) -> None:
    async with paid_world.shotstack(tmp_path) as paid:
        paid.sandbox.faults.append(Fault(route="shotstack.render", status=status, times=1))
        journal = paid.journal()
        with pytest.raises(error):
            await paid.carry(journal)
        assert journal.states == [PaidState.SENDING, PaidState.INTENT]
        assert isinstance(journal.proofs[-1], NotBilled)
        assert str(status) in journal.proofs[-1].evidence or "rate limit" in journal.proofs[-1].evidence
        await paid.carry(journal)
        paid.assert_once(journal)
        assert orders(paid) == 2


def test_a_lost_answer_is_not_a_proof() -> None:
    with pytest.raises(IllegalTransition, match="does not prove that the order was refused"):
        NotBilled("the answer was lost", error=Unknown("lost", provider="shotstack"))


@pytest.mark.parametrize(
    ("kind", "status"), [("status", 500), ("status", 503), ("malformed", 0), ("drop_before", 0), ("drop_after", 0)]
)
async def test_an_order_without_a_clear_answer_is_not_a_refusal(tmp_path: Path, kind: str, status: int) -> None:
    """A proxy's 502 says nothing about what the service behind it did."""
    async with paid_world.shotstack(tmp_path) as paid:
        paid.sandbox.faults.append(Fault(route="shotstack.render", kind=kind, status=status, times=1))
        journal = paid.journal()
        with pytest.raises(Unknown):
            await paid.carry(journal)
        assert (journal.states, journal.proofs) == ([PaidState.SENDING, PaidState.UNKNOWN], [None, None])


async def test_what_goes_wrong_before_the_order_leaves_nothing_in_the_ledger(tmp_path: Path) -> None:
    async with paid_world.shotstack(tmp_path) as paid:
        paid.sandbox.faults.append(Fault(route="shotstack.put", status=403, times=1))
        journal = paid.journal()
        with pytest.raises(Transient):
            await paid.carry(journal)
        assert (journal.count, orders(paid)) == (0, 0)


async def test_an_unusable_video_is_written_off_and_never_returned_again(tmp_path: Path) -> None:
    async with paid_world.shotstack(tmp_path) as paid:
        journal = paid.journal()
        take = paid.take

        async def useless(fetch: Fetch, cost: Decimal) -> WrittenOff:
            await take(fetch, cost)
            return WrittenOff("0.4 s long", cost, Permanent("unusable", provider="shotstack"))

        paid.take = useless  # type: ignore[method-assign]
        with pytest.raises(Permanent, match="unusable"):
            await paid.carry(journal)
        assert (journal.record.state, journal.record.remote_id) == (PaidState.INTENT, None)
        assert (journal.proofs[-1].evidence, journal.proofs[-1].usd > 0) == ("0.4 s long", True)
        paid.take = take  # type: ignore[method-assign]
        await paid.carry(journal)
        assert journal.record.remote_id == paid.billed[-1]["id"] != paid.billed[0]["id"]


async def test_a_render_on_this_machine_that_fails_costs_nothing_and_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble = [NotYet("the disk is full", retry_after=1)]

    async def render(*given: object, **named: object) -> None:
        if trouble:
            raise trouble.pop()
        await paid_world.quick_render(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(local_renderer, "render", render)
    async with paid_world.local(tmp_path) as paid:
        journal = paid.journal()
        with pytest.raises(NotYet):
            await paid.carry(journal)
        assert journal.states == [PaidState.SENDING, PaidState.INTENT]
        assert isinstance(journal.proofs[-1], NotBilled)
        await paid.carry(journal)
        paid.assert_once(journal)
