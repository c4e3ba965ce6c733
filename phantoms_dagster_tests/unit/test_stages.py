"""Stages, their states and the legal transitions between them."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantoms_dagster.domain.errors import IllegalTransition, UnknownStage
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.publication import (
    IN_FLIGHT,
    MAY_BE_OUT,
    NEEDS_PROOF,
    OUT_OF_OUR_HANDS,
    POST_TRANSITIONS,
    NotPublished,
    check_step,
)
from phantoms_dagster.domain.stages import (
    KINDS,
    STAGES,
    TRANSITIONS,
    PostState,
    StageEvent,
    StageState,
    downstream,
    next_state,
    stage,
    stages_for,
    states_before,
)
from phantoms_dagster.production.cleaning import Policy

names = st.sampled_from(sorted(STAGES))


def upstream(name: str) -> set[str]:
    """Every stage that must be done before `name`, found without `downstream`."""
    found: set[str] = set()
    for parent in STAGES[name].after:
        found |= {parent} | upstream(parent)
    return found


@given(st.lists(st.sampled_from(StageEvent), max_size=60))
def test_a_random_walk_over_events_never_leaves_the_table(events: list[StageEvent]) -> None:
    state = StageState.BLOCKED
    for event in events:
        if (state, event) in TRANSITIONS:
            state = next_state(state, event)
            assert isinstance(state, StageState)
        else:
            with pytest.raises(IllegalTransition, match=f"{state} cannot {event}"):
                next_state(state, event)


def test_every_state_can_be_reached_from_a_new_video() -> None:
    reached = {StageState.BLOCKED, StageState.READY}
    while more := {to for (state, _), to in TRANSITIONS.items() if state in reached} - reached:
        reached |= more
    assert reached == set(StageState)


def test_no_state_is_a_dead_end_for_a_person() -> None:
    assert {state for state, _ in TRANSITIONS} == set(StageState)


def test_only_a_running_stage_ends_and_only_a_claim_makes_it_run() -> None:
    for event in (StageEvent.FINISH, StageEvent.DEFER, StageEvent.FAIL, StageEvent.REJECT):
        assert states_before(event) == (StageState.RUNNING,)
    assert {event for (_, event), to in TRANSITIONS.items() if to is StageState.RUNNING} == {StageEvent.CLAIM}


def test_what_is_done_or_discarded_is_never_claimed() -> None:
    assert not {StageState.DONE, StageState.DISCARDED, StageState.BLOCKED} & set(states_before(StageEvent.CLAIM))


def test_a_regenerated_stage_can_void_whatever_state_a_later_stage_is_in() -> None:
    assert set(states_before(StageEvent.VOID)) == set(StageState)
    assert {TRANSITIONS[state, StageEvent.VOID] for state in StageState} == {StageState.BLOCKED}


@given(names)
def test_every_input_of_a_stage_is_made_upstream_of_it(name: str) -> None:
    assert set(STAGES[name].needs) <= upstream(name)


@given(names)
def test_what_a_stage_makes_is_stored_under_its_kind(name: str) -> None:
    """The kind in the table of stages is how its JSON is read back."""
    assert STAGES[name].output.model_fields["kind"].default == STAGES[name].kind


@pytest.mark.parametrize("policy", get_args(Policy))
def test_a_policy_of_retention_keeps_files_of_stages_that_have_some(policy: str) -> None:
    goes = {stage.kind for stage in STAGES.values() if policy not in stage.kept_by}
    assert all(KINDS[kind].files == "writes" for kind in goes)
    assert goes == {"all": set(), "master": {"voiceover", "variant"}, "none": {"voiceover", "variant", "rendered_video"}}[policy]


@given(names)
def test_the_stage_right_before_is_always_among_the_inputs(name: str) -> None:
    assert set(STAGES[name].after) <= set(STAGES[name].needs)


@given(names, names)
def test_downstream_and_upstream_agree(one: str, other: str) -> None:
    assert (other in {s.name for s in downstream(one)}) == (one in upstream(other))


@given(st.sets(st.sampled_from(tuple(Platform)), min_size=1))
def test_a_video_has_the_common_stages_and_those_of_its_platforms_in_running_order(platforms: set[Platform]) -> None:
    wanted = [s.name for s in stages_for(tuple(platforms))]
    assert set(wanted) == {s.name for s in STAGES.values() if s.platform is None or s.platform in platforms}
    for name in wanted:
        assert upstream(name) <= set(wanted[: wanted.index(name)])


def test_an_unknown_stage_is_answered_with_the_names_there_are() -> None:
    assert stage("youtube/post").slug == "youtube_post"
    with pytest.raises(UnknownStage, match=r"'posting'; the stages are script, voiceover"):
        stage("posting")


@given(st.lists(st.sampled_from(PostState), max_size=40))
def test_a_post_that_walks_only_legal_steps_is_never_published_before_its_commit_point(steps: list[PostState]) -> None:
    state, visited = PostState.INTENT, {PostState.INTENT}
    for step in steps:
        if step in POST_TRANSITIONS[state]:
            state = step
            visited.add(state)
    if PostState.PUBLISHED in visited:
        assert PostState.COMMITTING in visited or PostState.UNKNOWN in visited
    if PostState.CONFIRMED in visited:
        assert PostState.PUBLISHED in visited


def test_a_post_can_reach_every_state_and_never_leaves_published() -> None:
    assert set(POST_TRANSITIONS) == set(PostState)
    reached = {PostState.INTENT}
    while more := set(itertools.chain.from_iterable(POST_TRANSITIONS[s] for s in reached)) - reached:
        reached |= more
    assert reached == set(PostState)
    assert POST_TRANSITIONS[PostState.PUBLISHED] | POST_TRANSITIONS[PostState.CONFIRMED] == {
        PostState.PUBLISHED,
        PostState.CONFIRMED,
    }


def test_a_failed_post_starts_over_and_nothing_commits_straight_from_the_intent() -> None:
    assert POST_TRANSITIONS[PostState.FAILED] == {PostState.INTENT}
    assert not {PostState.COMMITTING, PostState.PUBLISHED, PostState.UNKNOWN} & POST_TRANSITIONS[PostState.INTENT]


@given(st.sampled_from(PostState))
def test_a_commit_point_can_follow_only_on_something_opened(state: PostState) -> None:
    if PostState.COMMITTING in POST_TRANSITIONS[state]:
        assert state in {*IN_FLIGHT, PostState.UNKNOWN}


@given(st.sampled_from(PostState), st.sampled_from(PostState))
def test_only_a_proof_leads_from_a_post_that_may_be_out_to_anything_that_sends_again(before: PostState, after: PostState) -> None:
    proof = NotPublished("the platform says so", then="open")
    if after not in POST_TRANSITIONS[before]:
        with pytest.raises(IllegalTransition, match=f"a post that is {before} cannot become {after}"):
            check_step(before, after, proof)
    elif (before, after) in NEEDS_PROOF:
        check_step(before, after, proof)
        with pytest.raises(IllegalTransition, match="only with the proof"):
            check_step(before, after, None)
    else:
        check_step(before, after, None)
    if before in OUT_OF_OUR_HANDS and after not in (PostState.PUBLISHED, PostState.UNKNOWN, PostState.HANDED_OVER):
        assert after not in POST_TRANSITIONS[before] or (before, after) in NEEDS_PROOF


def test_a_post_that_may_be_out_never_fails() -> None:
    assert all(PostState.FAILED not in POST_TRANSITIONS[state] for state in OUT_OF_OUR_HANDS)


def test_a_post_that_its_creator_has_leaves_that_state_only_as_published_or_with_a_proof() -> None:
    assert POST_TRANSITIONS[PostState.HANDED_OVER] == {PostState.HANDED_OVER, PostState.PUBLISHED, PostState.INTENT}
    assert (PostState.HANDED_OVER, PostState.INTENT) in NEEDS_PROOF
    before = {state for state in PostState if PostState.HANDED_OVER in POST_TRANSITIONS[state]}
    assert before == {*MAY_BE_OUT, PostState.HANDED_OVER}
