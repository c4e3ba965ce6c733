"""The planner: which runs to request, given what is ready and what runs already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from phantoms_dagster.domain.planning import OpenRun, PlannedRun, ReadyVideo, Span
from phantoms_dagster.domain.stages import CHAINS
from phantoms_dagster.production.planner import BatchPolicy, plan

NOW = datetime(2026, 11, 22, 12, 0, 5, tzinfo=UTC)
KEYS = [f"k{n:02d}" for n in range(30)]
ORDER = {key: place for place, key in enumerate(KEYS)}
LONG_AGO = NOW - timedelta(hours=1)


class Table:
    """`Waiting` over a list. What the statements do is tested in `integration/test_planning`."""

    def __init__(self, videos: Sequence[ReadyVideo], order: Mapping[str, int]) -> None:
        self._videos = videos
        self._places = sorted(order.values())
        self._order = order

    def spans(self, runs: Sequence[OpenRun]) -> list[Span]:
        known = [run for run in runs if run.first in self._order and run.last in self._order]
        return [Span(run.target, self._order[run.first], self._order[run.last]) for run in known]

    def most_urgent(self, most: Mapping[str, int], busy: Sequence[Span]) -> dict[str, list[ReadyVideo]]:
        found: dict[str, list[ReadyVideo]] = {}
        far = datetime.max.replace(tzinfo=UTC)
        for stage, count in most.items():
            spans = [span for span in busy if span.target == stage]
            free = [v for v in self._videos if v.stage == stage and not any(v.position in span for span in spans)]
            found[stage] = sorted(free, key=lambda v: (v.publish_at or far, v.priority, v.position))[:count]
        return found

    def around(self, wanted: Sequence[tuple[str, int]], most: int) -> dict[tuple[str, int], list[ReadyVideo]]:
        found: dict[tuple[str, int], list[ReadyVideo]] = {}
        for stage, place in wanted:
            ready = {v.position: v for v in self._videos if v.stage == stage}
            middle = self._places.index(place)
            window: list[ReadyVideo] = []
            for at in self._places[middle:][:most]:
                if at not in ready:
                    break
                window.append(ready[at])
            for at in reversed(self._places[:middle][-most:]):
                if at not in ready:
                    break
                window.insert(0, ready[at])
            found[stage, place] = window
        return found


def video(
    place: int,
    *,
    stage: str = "script",
    generation: int = 0,
    priority: int = 5,
    at: datetime | None = None,
    since: datetime = LONG_AGO,
) -> ReadyVideo:
    return ReadyVideo(stage, KEYS[place], place, generation, since, priority, at)


def planned(
    *videos: ReadyVideo,
    open_runs: tuple[OpenRun, ...] = (),
    batch_size: int = 10,
    runs_per_stage: int = 10,
    now: datetime = NOW,
    order: dict[str, int] = ORDER,
    chain_videos: int = 0,
    batch_wait: float = 0,
) -> list[PlannedRun]:
    policy = BatchPolicy(
        batch_size=batch_size, runs_per_stage=runs_per_stage, chain_videos=chain_videos, batch_wait=timedelta(seconds=batch_wait)
    )
    table = Table(videos, order)
    return [run for chain in CHAINS.values() for run in plan(table, chain=chain, open_runs=open_runs, policy=policy, now=now)]


def spans(runs: list[PlannedRun]) -> list[tuple[str, str]]:
    return [(run.first, run.last) for run in runs]


def test_nothing_ready_is_nothing_planned() -> None:
    assert planned() == []


def test_a_gap_in_the_partitions_cuts_a_range_in_two() -> None:
    runs = planned(*(video(n) for n in (0, 1, 2, 4, 5)))
    assert spans(runs) == [("k00", "k02"), ("k04", "k05")]
    assert runs[0].keys == ("k00", "k01", "k02")


def test_a_range_is_cut_at_the_batch_size() -> None:
    assert spans(planned(*(video(n) for n in range(5)), batch_size=2)) == [("k00", "k01"), ("k02", "k03"), ("k04", "k04")]


@given(
    st.sets(st.integers(0, 29)),
    st.integers(1, 8),
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)).map(sorted), max_size=3),
)
def test_runs_are_contiguous_small_enough_few_enough_and_never_overlap(
    places: set[int], batch_size: int, runs_per_stage: int, busy: list[list[int]]
) -> None:
    open_runs = tuple(OpenRun("script", KEYS[first], KEYS[last]) for first, last in busy)
    runs = planned(*(video(n) for n in places), open_runs=open_runs, batch_size=batch_size, runs_per_stage=runs_per_stage)
    assert len(runs) + len(open_runs) <= max(runs_per_stage, len(open_runs))
    seen: list[int] = []
    for run in runs:
        covered = [ORDER[key] for key in run.keys]
        assert covered == list(range(ORDER[run.first], ORDER[run.last] + 1))
        assert len(covered) <= batch_size
        seen += covered
    assert len(seen) == len(set(seen))
    assert set(seen) <= places
    assert not any(first <= place <= last for place in seen for first, last in busy)


@given(st.sets(st.integers(0, 29)), st.integers(1, 8))
def test_with_room_for_all_runs_no_ready_video_is_left_out(places: set[int], batch_size: int) -> None:
    runs = planned(*(video(n) for n in places), batch_size=batch_size, runs_per_stage=30)
    assert sorted(key for run in runs for key in run.keys) == sorted(KEYS[n] for n in places)


def test_videos_of_an_open_run_are_left_to_it_and_it_counts_against_the_stage() -> None:
    open_run = OpenRun("script", "k01", "k02")
    assert spans(planned(*(video(n) for n in range(4)), open_runs=(open_run,))) == [("k00", "k00"), ("k03", "k03")]
    assert spans(planned(*(video(n) for n in range(4)), open_runs=(open_run,), runs_per_stage=2)) == [("k00", "k00")]
    assert planned(*(video(n) for n in range(4)), open_runs=(open_run,), runs_per_stage=1) == []


def test_an_open_run_of_another_stage_blocks_no_video() -> None:
    assert spans(planned(video(0), open_runs=(OpenRun("voiceover", "k00", "k05"),), runs_per_stage=1)) == [("k00", "k00")]


def test_stages_are_planned_apart_from_each_other() -> None:
    runs = planned(video(0), video(1, stage="voiceover"), runs_per_stage=1)
    assert [(run.target, run.first) for run in runs] == [("script", "k00"), ("voiceover", "k01")]


def test_partitions_that_were_retired_leave_no_gap() -> None:
    assert spans(planned(video(0), video(2), order={"k00": 0, "k02": 2})) == [("k00", "k02")]


def test_the_nearest_publish_time_goes_first_then_the_highest_priority() -> None:
    videos = (
        video(0, priority=9),
        video(2, priority=1),
        video(4, at=NOW + timedelta(days=2)),
        video(6, at=NOW + timedelta(days=1), priority=9),
    )
    runs = planned(*videos)
    assert [run.first for run in runs] == ["k06", "k04", "k02", "k00"]
    assert [run.priority for run in runs] == [0, 4, 8, 0]
    assert [run.first for run in planned(*videos, runs_per_stage=2)] == ["k06", "k04"]


def test_a_run_is_as_urgent_as_its_most_urgent_video() -> None:
    runs = planned(video(0, priority=2), video(3, priority=5), video(4, priority=0), video(5, priority=9))
    assert [(run.first, run.priority) for run in runs] == [("k03", 9), ("k00", 7)]


def test_a_run_key_says_what_the_run_is_and_stays_the_same_within_a_minute() -> None:
    keys = {planned(video(0), video(1), now=NOW + timedelta(seconds=s))[0].run_key for s in (0, 20, 54)}
    assert len(keys) == 1
    assert keys.pop().startswith("script/k00..k01/")


def test_a_request_that_came_to_nothing_gets_a_new_run_key_a_minute_later() -> None:
    assert planned(video(0))[0].run_key != planned(video(0), now=NOW + timedelta(seconds=60))[0].run_key


def test_other_videos_or_a_new_claim_of_the_same_ones_make_another_run_key() -> None:
    base = planned(video(0), video(1), video(2))[0].run_key
    assert planned(video(0), video(1, generation=1), video(2))[0].run_key != base
    assert planned(video(0), video(2), order={"k00": 0, "k02": 2})[0].run_key != base


# --- what goes first


def test_a_range_grows_around_the_most_urgent_video_and_takes_its_neighbours_along() -> None:
    videos = [video(n, at=NOW + timedelta(days=1) if n == 6 else None) for n in range(9)]
    assert spans(planned(*videos, batch_size=5)) == [("k04", "k08"), ("k00", "k03")]


def test_a_near_publish_time_puts_a_run_before_all_others_of_its_stage() -> None:
    runs = planned(video(0, priority=0), video(2, priority=9, at=NOW + timedelta(minutes=59)))
    assert [(run.first, run.priority) for run in runs] == [("k02", 10), ("k00", 9)]


# --- chains


def test_a_few_videos_do_a_whole_chain_in_one_run() -> None:
    assert [(run.target, run.keys) for run in planned(video(0), video(1), chain_videos=2)] == [("make", ("k00", "k01"))]
    assert [run.target for run in planned(video(3, stage="approval"), chain_videos=2)] == ["release"]


def test_many_videos_keep_their_stages_apart() -> None:
    assert [run.target for run in planned(video(0), video(1), video(2), chain_videos=2)] == ["script"]


def test_while_a_chain_is_under_way_others_go_stage_by_stage() -> None:
    runs = planned(video(0), video(1), video(5), chain_videos=2, open_runs=(OpenRun("make", "k00", "k01"),))
    assert [(run.target, run.first) for run in runs] == [("script", "k05")]


def test_the_videos_of_a_chain_are_left_to_it_in_all_its_stages() -> None:
    videos = [video(0, stage=name) for name in ("voiceover", "rendered_video", "approval")]
    assert [run.target for run in planned(*videos, open_runs=(OpenRun("make", "k00", "k00"),))] == ["approval"]


def test_few_videos_that_are_no_neighbours_go_one_by_the_chain_and_the_others_by_the_stage_at_once() -> None:
    assert [(run.target, run.first) for run in planned(video(0), video(4), chain_videos=2)] == [("make", "k00"), ("script", "k04")]


def test_a_chain_takes_no_room_from_its_stages() -> None:
    chain = OpenRun("make", "k00", "k00")
    assert [run.target for run in planned(video(3), runs_per_stage=1, open_runs=(chain,))] == ["script"]


def test_an_approval_gets_its_chain_while_renders_of_others_are_under_way() -> None:
    """The planner once failed for a minute: no approvals were left, but it asked for the oldest of them."""
    renders = (OpenRun("rendered_video", "k10", "k20"), OpenRun("make", "k25", "k25"))
    assert [run.target for run in planned(video(0, stage="approval"), open_runs=renders, chain_videos=3, batch_wait=5)] == [
        "release"
    ]


def test_what_is_released_goes_before_all_that_is_made() -> None:
    urgent = video(0, priority=0, at=NOW)
    [made, released] = planned(urgent, video(2, stage="youtube/post", priority=9))
    assert (made.target, released.target) == ("script", "youtube/post")
    assert released.priority > made.priority


# --- gathering


def test_an_approval_waits_for_no_renders() -> None:
    fresh = [video(n, stage="approval", since=NOW) for n in range(3)]
    assert spans(planned(*fresh, open_runs=(OpenRun("rendered_video", "k10", "k20"),), batch_wait=5)) == [("k00", "k02")]


def test_a_batch_waits_for_no_video_of_a_chain() -> None:
    fresh = [video(n, stage="voiceover", since=NOW) for n in range(3)]
    assert spans(planned(*fresh, open_runs=(OpenRun("make", "k10", "k20"),), batch_wait=5)) == [("k00", "k02")]


def test_a_batch_waits_for_the_run_before_it_but_not_forever() -> None:
    before = (OpenRun("script", "k10", "k20"),)
    fresh = [video(n, stage="voiceover", since=NOW - timedelta(seconds=1)) for n in range(3)]
    assert planned(*fresh, open_runs=before, batch_wait=5) == []
    assert spans(planned(*fresh, open_runs=before, batch_wait=1)) == [("k00", "k02")]
    assert spans(planned(*fresh, batch_wait=5)) == [("k00", "k02")]


def test_a_full_batch_does_not_wait() -> None:
    fresh = [video(n, stage="voiceover", since=NOW) for n in range(3)]
    assert len(planned(*fresh, open_runs=(OpenRun("script", "k10", "k20"),), batch_wait=5, batch_size=3)) == 1
