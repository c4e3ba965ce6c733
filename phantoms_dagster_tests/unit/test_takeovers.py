"""What the benchmark *hosts* concludes from the record of claims and outcomes."""

from __future__ import annotations

from phantoms_dagster_tests.benchmarks.claim_log import Held, Noted, overwritten, runs_by_host, taken_over


def held(host: str, *, generation: int = 1, run_id: str = "r1", video_id: int = 1) -> Held:
    return Held(video_id, "script", generation, run_id, host)


def test_a_run_that_another_host_claimed_is_resumed_with_the_seconds_until_then() -> None:
    lost = held("host-a")
    record = [
        Noted(10.0, "claimed", lost),
        Noted(43.0, "claimed", held("host-b", generation=2)),
        Noted(44.0, "ended", held("host-b", generation=2)),
    ]
    became = taken_over(record, [lost], at=12.0)
    assert became.resumed == {"r1": 31.0}
    assert not became.ended_there
    assert not became.lost


def test_a_run_counts_as_resumed_with_the_first_of_its_videos() -> None:
    first, second = held("host-a"), held("host-a", video_id=2)
    record = [
        Noted(50.0, "claimed", held("host-b", generation=2, video_id=2)),
        Noted(42.0, "claimed", held("host-b", generation=2)),
    ]
    assert taken_over(record, [first, second], at=12.0).resumed == {"r1": 30.0}


def test_a_run_that_its_host_ended_itself_is_neither_resumed_nor_lost() -> None:
    mine = held("host-a")
    record = [Noted(60.0, "ended", mine), Noted(61.0, "claimed", held("host-b", generation=2))]
    became = taken_over(record, [mine], at=12.0)
    assert (became.resumed, became.ended_there, became.lost) == ({}, {"r1"}, set())


def test_a_run_that_no_worker_took_is_lost() -> None:
    assert taken_over([Noted(10.0, "claimed", held("host-a"))], [held("host-a")], at=12.0).lost == {"r1"}


def test_an_outcome_of_an_older_claim_counts_as_written_over_a_newer_one() -> None:
    newer = [Noted(1.0, "claimed", held("host-a")), Noted(2.0, "claimed", held("host-b", generation=2))]
    assert overwritten([*newer, Noted(3.0, "ended", held("host-b", generation=2))]) == []
    assert overwritten([*newer, Noted(3.0, "ended", held("host-a"))]) == [
        "host-a ended script of video 1, which another had claimed"
    ]


def test_runs_are_counted_once_on_each_host_and_only_within_the_time() -> None:
    record = [
        Noted(1.0, "claimed", held("host-a", run_id="early")),
        Noted(2.0, "claimed", held("host-a")),
        Noted(2.1, "claimed", held("host-a", video_id=2)),
        Noted(3.0, "claimed", held("host-b", run_id="r2")),
        Noted(4.0, "ended", held("host-b", run_id="r3")),
        Noted(9.0, "claimed", held("host-b", run_id="late")),
    ]
    assert runs_by_host(record, begin=2.0, end=9.0) == {"host-a": 1, "host-b": 1}
