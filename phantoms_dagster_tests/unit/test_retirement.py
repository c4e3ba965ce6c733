"""Which videos have ended, and what open runs work on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.retirement import InFlight, RetirementCandidate
from phantoms_dagster.domain.stages import PostState, StageState, stages_for
from phantoms_dagster.production.cleaning import stages_that_go
from phantoms_dagster.production.retirement import covered, may_be_retired, open_because

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DONE = {stage.name: StageState.DONE for stage in stages_for((Platform("youtube"), Platform("tiktok")))}
AFTER_APPROVAL = {name: StageState.BLOCKED for name in DONE if "/" in name}


def standing(states: dict[str, StageState], **changes: object) -> RetirementCandidate:
    fields = {"posts": {}, "ended_at": NOON, "registered": True, "retired_at": None, **changes}
    return RetirementCandidate(id=1, key="v", states=states, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {**AFTER_APPROVAL, "approval": StageState.REJECTED},
        {**AFTER_APPROVAL, "approval": StageState.BLOCKED, "rendered_video": StageState.DISCARDED},
        dict.fromkeys(DONE, StageState.BLOCKED) | {"script": StageState.DISCARDED},
        {"tiktok/variant": StageState.DISCARDED, "tiktok/post": StageState.BLOCKED},
        {"tiktok/post": StageState.DISCARDED},
    ],
)
def test_a_video_has_ended_when_all_is_done_or_given_up_or_can_never_run(changes: dict[str, StageState]) -> None:
    assert open_because(standing({**DONE, **changes})) is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"youtube/post": StageState.READY}, "youtube/post is ready"),
        ({"youtube/post": StageState.DEFERRED}, "youtube/post is deferred"),
        ({"script": StageState.RUNNING}, "script is running"),
        (
            {"tiktok/variant": StageState.FAILED, "tiktok/post": StageState.BLOCKED},
            "tiktok/variant failed: replay or discard its dead letter",
        ),
        ({**AFTER_APPROVAL, "approval": StageState.READY}, "approval is ready"),
        # A discarded post of one platform is no reason to leave the other one behind.
        (
            {"tiktok/post": StageState.DISCARDED, "youtube/variant": StageState.BLOCKED, "youtube/post": StageState.BLOCKED},
            "youtube/variant waits",
        ),
    ],
)
def test_a_video_with_anything_left_to_do_has_not_ended_and_says_what(changes: dict[str, StageState], why: str) -> None:
    assert (open_because(standing({**DONE, **changes})) or "").startswith(why)


def test_a_post_whose_outcome_is_open_keeps_its_video_although_its_letter_was_discarded() -> None:
    video = standing({**DONE, "tiktok/post": StageState.DISCARDED}, posts={"tiktok": PostState.UNKNOWN})
    assert open_because(video) == "its post on tiktok is unknown"


def test_a_video_that_dagster_does_not_know_has_not_ended() -> None:
    assert open_because(standing(DONE, registered=False)) is not None


def test_the_days_count_from_the_end() -> None:
    may = may_be_retired(NOON)
    assert may(standing(DONE, ended_at=NOON - timedelta(seconds=1)))
    assert not may(standing(DONE, ended_at=NOON))
    assert not may(standing({**DONE, "script": StageState.FAILED}, ended_at=NOON - timedelta(days=9)))


def test_the_policies_keep_everything_the_master_or_nothing() -> None:
    variants = tuple(f"{platform}/variant" for platform in Platform)
    assert stages_that_go("all") == ()
    assert stages_that_go("master") == ("voiceover", *variants)
    assert stages_that_go("none") == ("voiceover", "rendered_video", *variants)


KEYS = [f"k{n}" for n in range(8)]


@given(
    keys=st.frozensets(st.sampled_from([*KEYS, "gone"])),
    ranges=st.frozensets(st.tuples(st.sampled_from(KEYS), st.sampled_from(KEYS)), max_size=4),
)
def test_what_is_covered_is_each_key_and_all_between_the_ends_of_each_range(
    keys: frozenset[str], ranges: frozenset[tuple[str, str]]
) -> None:
    found = covered(InFlight(keys, ranges), KEYS, KEYS)
    for key in KEYS:
        between = any(min(a, b) <= key <= max(a, b) for a, b in ranges)
        assert (key in found) == (key in keys or between)


@pytest.mark.parametrize("in_flight", [InFlight(unclear=("run r1",)), InFlight(ranges=frozenset({("k1", "gone")}))])
def test_what_cannot_be_told_covers_everything_partition_or_not(in_flight: InFlight) -> None:
    assert covered(in_flight, KEYS, ["k3", "gone"]) == {"k3", "gone"}
