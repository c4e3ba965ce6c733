"""Retry decisions: which errors wait, for how long, and which give up."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantoms_dagster.domain.errors import (
    HumanRejection,
    InvalidInput,
    NotYet,
    Permanent,
    Rejected,
    Throttled,
    Transient,
    Unknown,
)
from phantoms_dagster.domain.retry import ASK_AGAIN_MAX_SECONDS, Defer, Fail, RetryDecision, RetryPolicy, WaitHere, decide

POLICY = RetryPolicy(attempts=5, backoff_seconds=2, backoff_max_seconds=900, max_wait_seconds=120, give_up_seconds=0)
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)

policies = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 20),
    backoff_seconds=st.floats(0.01, 10),
    backoff_max_seconds=st.floats(10, 3600),
    max_wait_seconds=st.floats(0, 600),
)
fractions = st.floats(0, 1)
wishes = st.none() | st.floats(allow_nan=True, allow_infinity=True)


def after(
    error: BaseException, attempt: int = 1, *, policy: RetryPolicy = POLICY, luck: float = 1.0, **more: object
) -> RetryDecision:
    return decide(error, attempt=attempt, policy=policy, random=lambda: luck, **more)  # type: ignore[arg-type]


def transient(retry_after: float | None = None) -> Transient:
    return Transient("down", provider="p", retry_after=retry_after)


def throttled(retry_after: float | None = None) -> Throttled:
    return Throttled("slow down", provider="p", retry_after=retry_after)


def unknown(retry_after: float | None = None) -> Unknown:
    return Unknown("answer lost", provider="p", retry_after=retry_after)


def test_the_back_off_doubles_with_each_attempt_up_to_its_longest() -> None:
    policy = RetryPolicy(attempts=50, backoff_seconds=2, backoff_max_seconds=50, max_wait_seconds=1000)
    waits = [after(transient(), n, policy=policy) for n in range(1, 8)]
    assert [w.seconds for w in waits if isinstance(w, WaitHere)] == [2, 4, 8, 16, 32, 50, 50]


def test_full_jitter_spreads_a_wait_from_nothing_to_the_whole_back_off() -> None:
    assert after(transient(), 3, luck=0.0) == WaitHere(0.0, "down", counts=True)
    assert after(transient(), 3, luck=0.5) == WaitHere(4.0, "down", counts=True)


def test_no_call_comes_back_before_the_providers_time_and_the_crowd_is_spread_after_it() -> None:
    assert after(transient(60), luck=0.0) == WaitHere(60, "down", counts=True)
    assert after(transient(60), luck=1.0) == WaitHere(62, "down", counts=True)


def test_a_wait_longer_than_the_patience_goes_to_the_table() -> None:
    assert after(transient(119), luck=0.5) == WaitHere(120, "down", counts=True)
    assert after(transient(119), luck=1.0) == Defer(121, "down", counts=True)


def test_a_transient_error_is_given_up_after_the_last_attempt() -> None:
    assert isinstance(after(transient(), 4), WaitHere)
    assert after(transient(), 5) == Fail("transient")


AGED = RetryPolicy(attempts=5, backoff_seconds=2, backoff_max_seconds=900, max_wait_seconds=120, give_up_seconds=1800)


def test_a_transient_error_is_final_only_when_attempts_and_age_are_used_up() -> None:
    assert after(transient(), 5, policy=AGED, failing_seconds=1799) == WaitHere(32, "down", counts=True)
    assert after(transient(), 4, policy=AGED, failing_seconds=99_999) == WaitHere(16, "down", counts=True)
    assert after(transient(), 5, policy=AGED, failing_seconds=1800) == Fail("transient")
    assert after(transient(), 9, policy=AGED) == Defer(512, "down", counts=True)  # its age is unknown, so it counts as young


def test_a_stage_through_which_nothing_got_meanwhile_is_given_up_after_days() -> None:
    assert after(transient(), 50, policy=AGED, failing_seconds=250_000, alone=True) == Defer(900, "down", counts=True)
    assert after(transient(), 50, policy=AGED, failing_seconds=259_200, alone=True) == Fail("transient")
    shorter = replace(AGED, give_up_alone_seconds=60.0)
    assert after(transient(), 50, policy=shorter, failing_seconds=1_799, alone=True) == Defer(900, "down", counts=True)


@pytest.mark.parametrize("luck", [0.25, 0.5, 1.0])
def test_the_back_off_goes_on_growing_until_the_age_is_reached(luck: float) -> None:
    seconds, gaps = 0.0, []
    for attempt in range(1, 100):
        decision = after(transient(), attempt, policy=AGED, luck=luck, failing_seconds=seconds)
        if isinstance(decision, Fail):
            break
        gaps.append(decision.seconds)
        seconds += decision.seconds
    assert 1800 <= seconds <= 1800 + 900
    assert gaps == sorted(gaps)
    assert 10 <= len(gaps) <= 20


def test_a_failure_in_an_outage_costs_nothing_and_is_never_final() -> None:
    assert after(transient(), 5000, policy=AGED, luck=0.0, failing_seconds=99_999, outage=True) == WaitHere(0, "down", counts=False)
    assert after(transient(), 1, policy=AGED, outage=True, again=3) == WaitHere(16, "down", counts=False)


def test_a_failed_probe_comes_back_as_soon_as_those_that_the_open_breaker_sent_away() -> None:
    outage = after(transient(), 1, policy=AGED, outage=True, again=40)
    assert getattr(outage, "seconds", None) == ASK_AGAIN_MAX_SECONDS


def test_a_video_that_waits_without_success_asks_less_and_less_often() -> None:
    nobody_waits = RetryPolicy(max_wait_seconds=0)
    gaps = [after(NotYet("open", retry_after=1), policy=nobody_waits, again=n) for n in range(8)]
    assert [gap.seconds for gap in gaps if isinstance(gap, Defer)] == [1, 5, 10, 20, 40, 60, 60, 60]
    busy = [after(NotYet("busy", retry_after=5, held=True), again=n) for n in range(9)]
    assert [gap.seconds for gap in busy if isinstance(gap, Defer)] == [5, 5, 10, 20, 40, 80, 160, 300, 300]


def test_being_throttled_never_costs_an_attempt_however_often_it_happens() -> None:
    assert after(throttled(30), 5, luck=0.0) == WaitHere(30, "slow down", counts=False)
    assert isinstance(after(throttled(), 5000), Defer)


@pytest.mark.parametrize("retry_after", [-5.0, math.nan, -math.inf])
def test_a_nonsense_retry_after_is_ignored(retry_after: float) -> None:
    assert after(transient(retry_after), luck=0.0) == WaitHere(0.0, "down", counts=True)


def test_an_endless_retry_after_is_asked_again_after_a_day() -> None:
    assert after(throttled(math.inf), luck=0.0) == Defer(86_400, "slow down", counts=False)


def test_an_unknown_outcome_is_read_back_ever_more_rarely_and_never_given_up() -> None:
    assert after(unknown(), luck=0.0) == WaitHere(30, "answer lost", counts=False)
    assert after(unknown(), reads=2) == WaitHere(120, "answer lost", counts=False)
    assert after(unknown(), reads=3) == Defer(240, "answer lost", counts=False)
    assert after(unknown(), reads=100_000) == Defer(900, "answer lost", counts=False)
    assert after(unknown(45)) == WaitHere(45, "answer lost", counts=False)
    assert after(unknown(), 500) == Defer(900, "answer lost", counts=False)


def test_what_will_never_work_fails_at_once() -> None:
    assert after(Permanent("bad key", provider="p")) == Fail("permanent")
    assert after(Rejected("policy", provider="p")) == Fail("rejected")
    assert after(HumanRejection("no")) == Fail("rejected")
    assert after(InvalidInput("no such account")) == Fail("permanent")
    assert after(KeyError("ours")) == Fail("internal")


def test_what_is_not_due_yet_waits_as_long_as_it_says_and_costs_nothing() -> None:
    assert after(NotYet("rendering", retry_after=3), 5) == WaitHere(3, "rendering", counts=False)
    assert after(NotYet("quota", retry_after=7200), 5) == Defer(7200, "quota", counts=False)


def test_no_video_waits_inside_a_run_for_another_run_unless_a_person_asked_for_it() -> None:
    busy = NotYet("busy", retry_after=5, held=True)
    assert after(busy) == Defer(5, "busy", counts=False)
    assert after(busy, waits_for_others=True) == WaitHere(5, "busy", counts=False)
    assert after(NotYet("busy", retry_after=7200, held=True), waits_for_others=True) == Defer(7200, "busy", counts=False)


def test_a_publish_hour_is_compared_with_now_and_handed_on_exactly() -> None:
    tonight = NOW + timedelta(hours=6)
    assert after(NotYet("hour", retry_after=1, until=tonight), now=NOW) == Defer(21_600, "hour", counts=False, until=tonight)
    assert after(NotYet("hour", retry_after=999, until=NOW - timedelta(hours=1)), now=NOW) == WaitHere(0, "hour", counts=False)
    assert after(NotYet("hour", retry_after=999, until=tonight)) == Defer(999, "hour", counts=False, until=tonight)


def test_a_time_that_has_passed_and_does_not_help_is_never_a_loop_without_a_pause() -> None:
    gone = NotYet("open", retry_after=60, until=NOW - timedelta(seconds=1))
    waits = [after(gone, now=NOW, again=n) for n in range(8)]
    assert [wait.seconds for wait in waits if isinstance(wait, WaitHere)] == [0, 0.05, 0.1, 0.2, 0.4, 0.8, 1, 1]


def test_a_publish_hour_in_a_fortnight_is_not_cut_to_a_day() -> None:
    assert after(NotYet("later", retry_after=14 * 86_400)) == Defer(14 * 86_400, "later", counts=False)


def test_a_cancellation_is_not_a_failure() -> None:
    with pytest.raises(asyncio.CancelledError):
        after(asyncio.CancelledError())


@pytest.mark.parametrize(
    "wrong", [{"attempts": 0}, {"backoff_seconds": 0}, {"backoff_seconds": 10, "backoff_max_seconds": 5}, {"max_wait_seconds": -1}]
)
def test_a_policy_that_could_not_decide_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"."):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


@given(policy=policies, attempt=st.integers(1, 10_000), luck=fractions, wish=wishes, kind=st.sampled_from([transient, throttled]))
def test_every_wait_is_finite_honours_the_wish_and_fits_its_place(
    policy: RetryPolicy, attempt: int, luck: float, wish: float | None, kind: type[Transient]
) -> None:
    decision = decide(kind(wish), attempt=attempt, policy=policy, random=lambda: luck)  # type: ignore[call-arg,arg-type]
    if isinstance(decision, Fail):
        assert kind is transient
        assert attempt >= policy.attempts
        return
    floor = min(max(wish, 0.0), 86_400.0) if wish is not None and not math.isnan(wish) else 0.0
    assert floor <= decision.seconds <= floor + policy.backoff_max_seconds
    assert isinstance(decision, WaitHere) == (decision.seconds <= policy.max_wait_seconds)
    assert decision.counts == (kind is transient)


@given(policy=policies, reads=st.integers(0, 10_000), wish=wishes)
def test_an_unknown_outcome_never_fails_and_never_costs(policy: RetryPolicy, reads: int, wish: float | None) -> None:
    decision = decide(unknown(wish), attempt=10_000, policy=policy, random=lambda: 1.0, reads=reads)
    assert not isinstance(decision, Fail)
    assert decision.counts is False
    assert 0 <= decision.seconds <= max(policy.backoff_max_seconds, 86_400.0)
