"""The planner: which runs to request, given what is ready and what runs already."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from phantoms_dagster.domain.work import OpenRun, PlannedRun, ReadyVideo
from phantoms_dagster.production.planner import plan

NOW = datetime(2026, 11, 22, 12, 0, 5, tzinfo=UTC)
KEYS = [f"k{n:02d}" for n in range(30)]
ORDER = {key: place for place, key in enumerate(KEYS)}


def video(place: int, *, stage: str = "script", generation: int = 0, priority: int = 5, at: datetime | None = None) -> ReadyVideo:
    return ReadyVideo(stage, KEYS[place], generation, priority, at)


def planned(
    *videos: ReadyVideo,
    open_runs: tuple[OpenRun, ...] = (),
    batch_size: int = 10,
    runs_per_stage: int = 10,
    now: datetime = NOW,
    order: dict[str, int] = ORDER,
) -> list[PlannedRun]:
    ready: dict[str, list[ReadyVideo]] = {}
    for one in videos:
        ready.setdefault(one.stage, []).append(one)
    return plan(ready, order=order, open_runs=open_runs, batch_size=batch_size, runs_per_stage=runs_per_stage, now=now)


def spans(runs: list[PlannedRun]) -> list[tuple[str, str]]:
    return [(run.first, run.last) for run in runs]


def test_nothing_ready_is_nothing_planned() -> None:
    assert planned() == []
    assert plan({"script": []}, order=ORDER, open_runs=[], batch_size=5, runs_per_stage=5, now=NOW) == []


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


def test_an_open_run_of_another_stage_is_in_nobodys_way() -> None:
    assert spans(planned(video(0), open_runs=(OpenRun("voiceover", "k00", "k05"),), runs_per_stage=1)) == [("k00", "k00")]


def test_stages_are_planned_apart_from_each_other() -> None:
    runs = planned(video(0), video(1, stage="voiceover"), runs_per_stage=1)
    assert [(run.stage, run.first) for run in runs] == [("script", "k00"), ("voiceover", "k01")]


def test_keys_that_dagster_does_not_list_yet_wait_for_the_intake() -> None:
    assert spans(planned(*(video(n) for n in (0, 1, 2)), order={"k00": 0, "k02": 1})) == [("k00", "k02")]


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
    assert planned(video(0), video(2), order={"k00": 0, "k02": 1})[0].run_key != base
