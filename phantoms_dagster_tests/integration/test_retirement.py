"""Retirement with a real PostgreSQL and a real Dagster: which videos go, which come back, and that a crash loses nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from phantoms_dagster.defs.in_flight import VideoPartitions
from phantoms_dagster.production import retirement
from phantoms_dagster.store.dead_letters.letters import DeadLetters, LetterFilter
from phantoms_dagster.store.decisions import Decisions
from phantoms_dagster.store.results.readings import Results
from phantoms_dagster_tests.integration.retirement_world import Archive, dagster_instance
from phantoms_dagster_tests.integration.stage_world import World, open_world

Status = dg.DagsterRunStatus
A_MONTH_AGO = datetime.now(UTC) - timedelta(days=30)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
def archive(world: World, tmp_path: Path, dagster_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    with dagster_instance(tmp_path, dagster_database_url, monkeypatch) as instance:
        yield Archive(world, instance)


def failed(world: World, key: str, *, letter: str) -> None:
    """The video's post failed; its letter is in that state, since yesterday if it is closed."""
    world.write(
        """UPDATE phantoms.stages s SET state = :state FROM phantoms.videos v
            WHERE v.id = s.video_id AND v.key = :key AND s.stage = 'youtube/post'""",
        key=key,
        state="failed" if letter == "open" else "discarded",
    )
    world.write(
        """INSERT INTO phantoms.dead_letters (video_id, stage, revision, error_class, message, attempts, state, closed_at)
            SELECT id, 'youtube/post', 1, 'permanent', 'no', '[]', :letter,
                CASE WHEN :letter <> 'open' THEN now() - interval '1 day' END
            FROM phantoms.videos WHERE key = :key""",
        key=key,
        letter=letter,
    )


def test_videos_that_ended_long_ago_leave_the_partitions_and_keep_their_rows_and_results(archive: Archive) -> None:
    old, young = archive.finished(3), archive.finished(2, ago=timedelta(days=3))
    archive.world.write(
        """INSERT INTO phantoms.posts
                (video_id, platform, account, state, marker, remote_id, video_sha256, caption_sha256, published_at)
            SELECT id, 'youtube', 'a', 'confirmed', key, key, '', '', now() - interval '60 days' FROM phantoms.videos"""
    )
    night = archive.retire()
    assert (night.retired, night.held, night.more) == (old, [], False)
    assert archive.known() == young
    assert (archive.retired(), archive.unfinished()) == (old, [])
    assert archive.world.rows("SELECT count(*) AS n FROM phantoms.stages")[0]["n"] == 5 * 6
    assert len(archive.world.rows("SELECT FROM phantoms.posts")) == 5
    assert {post.video_key for post in Results(archive.world.engine).due()} == {*old, *young}
    assert {row.key: row.retired_at is not None for row in archive.world.catalogue.videos()} == {
        **dict.fromkeys(old, True),
        **dict.fromkeys(young, False),
    }
    assert archive.retire().retired == []
    assert archive.register() == []


def test_what_waits_failed_was_discarded_yesterday_or_posts_with_an_open_outcome_stays(archive: Archive) -> None:
    waiting, broken, given_up, unknown, gone = archive.finished(5)
    archive.set(waiting, "youtube/post", "ready")
    archive.world.write("UPDATE phantoms.stages SET ready_at = now() + interval '90 days' WHERE state = 'ready'")
    failed(archive.world, broken, letter="open")
    failed(archive.world, given_up, letter="discarded")
    archive.world.write(
        """INSERT INTO phantoms.posts (video_id, platform, account, state, marker, video_sha256, caption_sha256)
            SELECT id, 'youtube', 'a', 'unknown', key, '', '' FROM phantoms.videos WHERE key = :key""",
        key=unknown,
    )
    assert archive.retire().retired == [gone]
    archive.world.write("UPDATE phantoms.dead_letters SET closed_at = now() - interval '31 days' WHERE state = 'discarded'")
    assert archive.retire().retired == [given_up]
    assert archive.known() == [waiting, broken, unknown]


def test_a_rejected_video_is_finished_and_so_are_the_stages_that_wait_for_it(archive: Archive) -> None:
    [key] = archive.finished()
    archive.set(key, "approval", "rejected")
    archive.set(key, "youtube/variant", "blocked")
    archive.set(key, "youtube/post", "blocked")
    assert archive.retire().retired == [key]


def test_a_night_has_its_bounds_and_says_that_more_is_left(archive: Archive) -> None:
    keys = archive.finished(7)
    first = archive.retire(most=5)
    assert (first.retired, first.more) == (keys[:5], True)
    second = archive.retire(most=5)
    assert (second.retired, second.more) == (keys[5:], False)


# --- crashes


class PowerCut(BaseException):
    """Nothing catches it."""


class Fragile:
    """Passes calls on, and dies before the call of that number."""

    def __init__(self, of: Any, calls: list[str], dies_at: int) -> None:
        self._of, self._calls, self._dies_at = of, calls, dies_at

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._of, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._count(name)
            return found(*args, **kwargs)

        return call

    def _count(self, name: str) -> None:
        self._calls.append(name)
        if len(self._calls) == self._dies_at:
            raise PowerCut(name)

    def lock_for_removal(self, keys: Sequence[str]) -> Any:
        self._count("lock_for_removal")
        fragile = self

        class Locked:
            def __enter__(self) -> Any:
                self._context = fragile._of.lock_for_removal(keys)
                return Fragile(self._context.__enter__(), fragile._calls, fragile._dies_at)

            def __exit__(self, kind: Any, error: Any, trace: Any) -> Any:
                if kind is None:
                    try:
                        fragile._count("commit")
                    except PowerCut as cut:
                        self._context.__exit__(PowerCut, cut, None)
                        raise
                return self._context.__exit__(kind, error, trace)

        return Locked()


def test_a_crash_before_any_step_is_made_good_by_the_next_night(archive: Archive) -> None:
    died_at = []
    for step in range(1, 100):
        keys = archive.finished(3)
        held = keys[1]
        archive.run(ends=(held, held))
        calls: list[str] = []
        store, partitions = Fragile(archive.store, calls, step), Fragile(archive.partitions, calls, step)
        try:
            retirement.retire(store, partitions, before=A_MONTH_AGO)
        except PowerCut as cut:
            died_at.append(str(cut))
        else:
            break
        assert held in archive.known()
        # A video that is not marked is whole: its partition is there.
        assert {key for key in keys if key not in archive.retired()} <= set(archive.known())
        archive.retire()
        assert (set(keys) & set(archive.known()), archive.unfinished()) == ({held}, [])
        assert set(archive.retired()) & set(keys) == set(keys) - {held}
        archive.end_runs()
        archive.retire()
    assert set(died_at) >= {
        "unfinished",
        "due",
        "in_flight",
        "keys",
        "mark",
        "lock_for_removal",
        "delete",
        "mark_removed",
        "commit",
    }


# --- back again


def test_a_video_that_is_taken_back_is_a_partition_again_and_has_its_days_before_it(archive: Archive) -> None:
    keys = archive.finished(3)
    archive.retire()
    young = archive.finished(1, ago=timedelta(days=1))
    assert archive.store.take_back([keys[0], young[0]]) == [keys[0]]
    assert archive.register() == [keys[0]]
    assert archive.known() == [*young, keys[0]]
    assert archive.world.catalogue.reorder(archive.known()) == 0
    assert archive.retire().retired == []


def test_a_video_that_is_taken_back_before_its_partition_is_deleted_stays_where_it_is(archive: Archive) -> None:
    keys = archive.finished(3)
    assert archive.store.mark([keys[1]], lambda _: True) == [keys[1]]
    assert archive.store.take_back(keys) == [keys[1]]
    assert archive.register() == []
    assert archive.known() == keys
    assert archive.world.catalogue.reorder(keys) == 0
    assert archive.retire().retired == [keys[0], keys[2]]


def test_a_video_that_a_person_has_marked_waits_for_its_run_and_goes_then(archive: Archive) -> None:
    [key] = archive.finished(1, ago=timedelta(days=1))
    archive.store.mark([key], lambda _: True)
    archive.run(key=key)
    assert (archive.retire().held, archive.known(), archive.retired()) == ([key], [key], [key])
    archive.end_runs()
    assert (archive.retire().retired, archive.known()) == ([key], [])


def test_a_retired_video_that_is_replayed_or_approved_after_all_comes_back_to_be_worked_on(archive: Archive) -> None:
    replayed, rejected, asleep = archive.finished(3)
    failed(archive.world, replayed, letter="discarded")
    archive.world.write("UPDATE phantoms.dead_letters SET closed_at = now() - interval '31 days'")
    archive.set(rejected, "approval", "rejected")
    archive.set(rejected, "youtube/variant", "blocked")
    archive.set(rejected, "youtube/post", "blocked")
    assert archive.retire().retired == [replayed, rejected, asleep]
    letters = DeadLetters(archive.world.engine)
    letters.replay(LetterFilter(ids=[letters.list(LetterFilter(state=None))[0].id], state=None), by="ann")
    Decisions(archive.world.engine).decide(rejected, approved=True, reviewer="ann", via="cli")
    assert sorted(archive.store.take_back_alive()) == sorted([replayed, rejected])
    assert archive.store.take_back_alive() == []
    assert sorted(archive.register()) == sorted([replayed, rejected])
    assert archive.world.due("youtube/post") == [replayed]
    assert archive.world.due("approval") == [rejected]
    assert archive.retired() == [asleep]


def test_a_video_that_comes_to_life_between_its_mark_and_its_deletion_is_left(archive: Archive) -> None:
    keys = archive.finished(2)
    store = archive.store
    store.mark(keys, lambda _: True)
    archive.set(keys[0], "youtube/post", "ready")
    night = archive.retire()
    assert (night.retired, night.taken_back, archive.known(), archive.retired()) == ([keys[1]], [keys[0]], [keys[0]], [keys[1]])


def test_who_takes_a_video_back_while_it_is_deleted_waits_and_gets_it_whole(archive: Archive) -> None:
    [key] = archive.finished()
    archive.store.mark([key], lambda _: True)
    back: list[str] = []
    person = threading.Thread(target=lambda: back.extend(archive.store.take_back([key])))

    class Slow(VideoPartitions):
        def delete(self, deleted: str) -> None:
            person.start()
            waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%retired_at = NULL%'"
            while person.is_alive() and not archive.world.rows(waiting):
                time.sleep(0.01)
            super().delete(deleted)

    retirement.retire(archive.store, Slow(archive.instance), before=None)
    person.join()
    assert (back, archive.known(), archive.retired()) == ([key], [], [])
    assert archive.register() == [key]
    assert archive.known() == [key]
