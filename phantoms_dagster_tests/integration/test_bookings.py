"""Approved videos take the next free slots of their channel, each slot once, and go out then."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, RowMapping

from phantoms_dagster.domain.brief_changes import BriefChanges
from phantoms_dagster.domain.claims import WAITS_FOR_PERSON, AttemptOutcome, PostTime, StageTask
from phantoms_dagster.domain.errors import InvalidInput, NotYet, WaitsForPerson
from phantoms_dagster.domain.models import Channel, Platform
from phantoms_dagster.domain.posting_slots import DayLimit, PostingSlot, booking_stamp
from phantoms_dagster.domain.stages import PostState, StageState
from phantoms_dagster.production.stages.variant import MakeVariant
from phantoms_dagster.store import booking_changes, brief_edits
from phantoms_dagster.store import bookings as store_bookings
from phantoms_dagster.store.audit import Actor
from phantoms_dagster.store.booking_changes import BookingChanges, ChangedMeanwhile
from phantoms_dagster.store.bookings import book_approved
from phantoms_dagster.store.brief_edits import BriefEdits
from phantoms_dagster.store.decisions import Decisions
from phantoms_dagster.store.judgement import Decided
from phantoms_dagster.store.post_times import PostgresPostTimes
from phantoms_dagster_tests.integration.publishing_world import Keeps, Studio, open_studio
from phantoms_dagster_tests.integration.stage_world import CHANNEL, World, done, open_world

YOUTUBE, TIKTOK = Platform("youtube"), Platform("tiktok")


@pytest.fixture
async def studio(database_url: str, tmp_path: Path) -> AsyncIterator[Studio]:
    async with open_world(database_url) as world, open_studio(world, tmp_path) as opened:
        yield opened


def slotted(*times: str, **changes: Any) -> Channel:
    slots = tuple(PostingSlot(time=one) for one in times or ("12:00", "18:00"))
    return CHANNEL.model_copy(update={"slots": slots, **changes})


def approve(studio: Studio, *keys: str, limits: Any = None) -> list[Decided]:
    decisions = Decisions(studio.world.engine, limits=lambda: limits or {})
    found = decisions.decide_all(list(keys), approved=True, reviewer="ann", via="cli")
    assert all(isinstance(one, Decided) for one in found)
    return found  # type: ignore[return-value]


def bookings(world: World) -> list[tuple[str, str, datetime, str, str]]:
    rows = world.rows(
        """SELECT v.key, b.platform, b.at, b.kind, b.state FROM phantoms.bookings b JOIN phantoms.videos v ON v.id = b.video_id
        ORDER BY b.at, b.platform, v.id"""
    )
    return [tuple(row.values()) for row in rows]  # type: ignore[misc]


def next_times(count: int, *hours: int) -> list[datetime]:
    """The next times at these UTC hours, as a person would count them."""
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    found = [midnight + timedelta(days=day, hours=hour) for day in range(count + 1) for hour in hours]
    return [at for at in found if at > now][:count]


async def to_post(studio: Studio, key: str) -> None:
    await studio.approved(key)
    await studio.varied(key)


async def post(studio: Studio, key: str) -> Any:
    _, claim = await studio.claim(key)
    return await studio.publish()(StageTask(claim, await studio.world.store().attempt(claim)))


async def test_videos_that_are_approved_together_take_the_next_free_slots_in_order(studio: Studio) -> None:
    keys = await studio.rendered(count=3, channel=slotted())
    found = approve(studio, *keys)
    times = next_times(3, 12, 18)
    assert bookings(studio.world) == [(key, "youtube", at, "slot", "booked") for key, at in zip(keys, times, strict=True)]
    assert [[slot.at for slot in one.booked] for one in found] == [[at] for at in times]


async def test_each_platform_has_its_own_slots(studio: Studio) -> None:
    slots = (PostingSlot(time="12:00", platforms=(YOUTUBE,)), PostingSlot(time="18:00", platforms=(TIKTOK,)))
    [key] = await studio.rendered(channel=CHANNEL.model_copy(update={"slots": slots}), platforms=(YOUTUBE, TIKTOK))
    approve(studio, key)
    expected = {("youtube", next_times(1, 12)[0]), ("tiktok", next_times(1, 18)[0])}
    assert {(platform, at) for _, platform, at, _, _ in bookings(studio.world)} == expected


async def test_a_channel_without_slots_and_a_brief_with_a_time_book_nothing(studio: Studio) -> None:
    [plain] = await studio.rendered()
    approve(studio, plain)
    studio.world.catalogue.put_channels([slotted()])
    [fixed] = await studio.rendered(channel=slotted())
    edits = BriefEdits(studio.world.engine)
    edits.edit(fixed, BriefChanges(publish_at=datetime.now(UTC) + timedelta(days=1)), by="test")
    assert approve(studio, fixed)[0].booked == ()
    assert bookings(studio.world) == []


async def test_a_fixed_time_near_a_slot_leaves_no_room_for_another_post(studio: Studio) -> None:
    first, second = await studio.rendered(count=2, channel=slotted("12:00"))
    noon, after = next_times(2, 12)
    BriefEdits(studio.world.engine).edit(first, BriefChanges(publish_at=noon + timedelta(minutes=20)), by="test")
    approve(studio, second)
    assert [at for _, _, at, _, _ in bookings(studio.world)] == [after]


async def test_a_post_is_ready_at_its_slot_and_waits_until_then(studio: Studio) -> None:
    [key] = await studio.rendered(channel=slotted())
    approve(studio, key)
    await to_post(studio, key)
    [at] = next_times(1, 12, 18)
    assert studio.world.row(key, "youtube/post")["ready_at"] == at
    with pytest.raises(NotYet, match="goes out at"):
        await post(studio, key)
    assert studio.posts() == []
    studio.clock.time = at
    assert (await post(studio, key)).output.remote_id
    assert len(studio.posts()) == 1


async def test_the_day_whose_quota_is_reserved_is_passed_over_and_that_is_said(studio: Studio) -> None:
    limits = {YOUTUBE: [DayLimit(1, "UTC")]}
    hour = (datetime.now(UTC) + timedelta(hours=2)).hour  # both slots of the next day are ahead, at every time of the day
    keys = await studio.rendered(count=2, channel=slotted(f"{hour:02}:00", f"{hour:02}:30"))
    first, second = approve(studio, *keys, limits=limits)
    [one], [other] = first.booked, second.booked
    assert other.at.date() == one.at.date() + timedelta(days=1)
    assert one.full == ()
    assert "YouTube's quota of" in other.note
    assert "1 of 1 posts; the next day's slot was taken" in other.note


async def test_two_people_who_approve_at_the_same_time_never_give_one_slot_to_two_videos(studio: Studio) -> None:
    keys = await studio.rendered(count=24, channel=slotted())
    halves = [keys[0::2], keys[1::2]]
    started = threading.Barrier(2)

    def approve_one_by_one(mine: list[str]) -> None:
        started.wait()
        for key in mine:
            approve(studio, key)

    await asyncio.gather(*(asyncio.to_thread(approve_one_by_one, half) for half in halves))
    times = [at for _, _, at, _, _ in bookings(studio.world)]
    assert times == next_times(24, 12, 18)


async def test_people_who_edit_move_and_cancel_one_video_at_the_same_time_do_not_deadlock(studio: Studio) -> None:
    """An edit held the video and waited for its stages; a cancellation held the stages, and its booking waited for the video."""
    [key] = await studio.rendered(channel=slotted())
    engine, ann = studio.world.engine, Actor("ann", "cli")
    changes, edits = BookingChanges(engine), BriefEdits(engine)
    at = next_times(40, 9)
    started = threading.Barrier(3)

    def all_day(change: Callable[[datetime], object]) -> None:
        started.wait()
        for one in at:
            change(one)

    await asyncio.gather(
        asyncio.to_thread(all_day, lambda time: edits.edit(key, BriefChanges(publish_at=time), by="ann", actor=ann)),
        asyncio.to_thread(all_day, lambda _: changes.cancel(key, ann)),
        asyncio.to_thread(all_day, lambda _: changes.move(key, "next", ann)),
    )
    assert changes.cancel(key, ann).refused == ()
    assert [state for *_, state in bookings(studio.world)] == ["cancelled"]


@pytest.mark.parametrize("slots", [True, False])
async def test_a_post_that_a_person_cancels_while_another_one_approves_its_video_stays_cancelled(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, slots: bool
) -> None:
    """The approval had looked before the cancellation, and booked the post in place of it."""
    plain = slotted() if slots else CHANNEL
    channel = Channel.model_validate({**plain.model_dump(), "repeats": {"days": 30, "percent": 90}})
    first, key = await studio.rendered(count=2, channel=channel)
    approve(studio, first)
    approving = threading.Thread(target=approve, args=(studio, key))
    carry_out = booking_changes._carry_out

    def approves_meanwhile(*given: Any, **named: Any) -> None:
        approving.start()
        while approving.is_alive() and not studio.world.blocked():
            time.sleep(0.01)
        carry_out(*given, **named)

    monkeypatch.setattr(booking_changes, "_carry_out", approves_meanwhile)
    await asyncio.to_thread(BookingChanges(studio.world.engine).cancel, key, Actor("bob", "desk"))
    await asyncio.to_thread(approving.join)
    assert [state for name, _, _, _, state in bookings(studio.world) if name == key] == ["cancelled"]


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_post_that_is_moved_after_its_run_read_the_old_time_is_due_when_the_run_has_ended(
    studio: Studio, cancelled: bool
) -> None:
    """The run then wrote that it waits, for its old time or for a person. A post that had been put back never went out."""
    [key] = await studio.rendered(channel=slotted())
    approve(studio, key)
    await to_post(studio, key)
    changes, ann = BookingChanges(studio.world.engine), Actor("ann", "cli")
    if cancelled:
        changes.cancel(key, ann)
    store, claim = await studio.claim(key)
    with pytest.raises(NotYet) as waits:
        await studio.publish()(StageTask(claim, await store.attempt(claim)))
    changes.move(key, "now", ann)
    waiting = AttemptOutcome(
        StageState.DEFERRED,
        retry_at=waits.value.until,
        error_class=WAITS_FOR_PERSON if cancelled else None,
        message=str(waits.value),
        unsent=True,
    )
    assert await store.finish(claim, waiting)
    assert studio.world.due("youtube/post") == [key]
    studio.clock.time = datetime.now(UTC)
    assert (await post(studio, key)).output.remote_id


@pytest.mark.parametrize("how", ["move", "edit"])
async def test_a_post_that_is_moved_while_its_variant_ends_is_ready_at_its_new_time(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The runner's statement had begun before the move, so the post got its old time, and waited for it until the next day."""
    publish_at = None if how == "move" else datetime.now(UTC) + timedelta(days=3)
    studio.world.catalogue.put_channels([slotted() if how == "move" else CHANNEL])
    [key] = await studio.rendered(channel=slotted() if how == "move" else CHANNEL)
    if publish_at is not None:
        BriefEdits(studio.world.engine).edit(key, BriefChanges(publish_at=publish_at), by="test")
    approve(studio, key)
    await studio.approved(key)
    store, claim = await studio.world.claimed("youtube/variant", key)
    made = await MakeVariant(studio=Keeps(), media=studio.store)(StageTask(claim, await store.attempt(claim)))
    locked = threading.Event()

    def holds_the_lock(connection: Connection, *given: Any, **named: Any) -> None:
        read_time_again(connection, *given, **named)
        locked.set()
        while not studio.world.blocked():
            time.sleep(0.01)

    read_time_again = store_bookings.read_time_again
    monkeypatch.setattr(booking_changes, "read_time_again", holds_the_lock)
    monkeypatch.setattr(brief_edits, "read_time_again", holds_the_lock)

    def moves() -> None:
        if how == "move":
            BookingChanges(studio.world.engine).move(key, "now", Actor("ann", "cli"))
        else:
            BriefEdits(studio.world.engine).edit(key, BriefChanges(publish_now=True), by="ann")

    moving = asyncio.create_task(asyncio.to_thread(moves))
    await asyncio.to_thread(locked.wait)
    assert await store.finish(claim, done(made))
    await moving
    assert studio.world.row(key, "youtube/post")["ready_at"] <= datetime.now(UTC)


async def test_the_database_refuses_a_second_booking_of_a_slot(studio: Studio) -> None:
    first, second = await studio.rendered(count=2, channel=slotted())
    approve(studio, first, second)
    with pytest.raises(Exception, match="bookings_once"):
        studio.world.write("UPDATE phantoms.bookings SET at = (SELECT min(at) FROM phantoms.bookings)")


async def test_a_rejected_video_gives_its_slot_back_and_a_given_up_post_too(studio: Studio) -> None:
    first, second, third = await studio.rendered(count=3, channel=slotted())
    approve(studio, first)
    studio.world.write(
        "UPDATE phantoms.stages SET state = 'discarded' WHERE stage = 'youtube/post' AND video_id = "
        "(SELECT id FROM phantoms.videos WHERE key = :key)",
        key=first,
    )
    approve(studio, second)
    assert [(key, at) for key, _, at, _, _ in bookings(studio.world)] == [(second, next_times(1, 12, 18)[0])]
    Decisions(studio.world.engine).decide(third, approved=False, reviewer="ann", via="cli")
    assert len(bookings(studio.world)) == 1


async def test_a_post_without_a_slot_books_one_when_its_channel_got_slots_later(studio: Studio) -> None:
    [key] = await studio.ready_to_post()
    assert bookings(studio.world) == []
    studio.world.catalogue.put_channels([slotted()])
    with pytest.raises(NotYet, match="goes out at"):
        await post(studio, key)
    assert [at for _, _, at, _, _ in bookings(studio.world)] == next_times(1, 12, 18)


async def test_a_new_time_in_the_brief_replaces_the_slot(studio: Studio) -> None:
    [key] = await studio.rendered(channel=slotted())
    approve(studio, key)
    await to_post(studio, key)
    later = datetime.now(UTC) + timedelta(days=9)
    edits = BriefEdits(studio.world.engine)
    edits.edit(key, BriefChanges(publish_at=later), by="test")
    assert bookings(studio.world) == []
    assert studio.world.row(key, "youtube/post")["ready_at"] == later
    edits.edit(key, BriefChanges(publish_now=True), by="test")
    with pytest.raises(NotYet, match="goes out at"):
        await post(studio, key)
    assert [at for _, _, at, _, _ in bookings(studio.world)] == next_times(1, 12, 18)


# --- missed slots


async def missed(studio: Studio, policy: str, *, count: int = 1) -> list[str]:
    """Posts that were ready, and whose slots passed two hours ago."""
    keys = await studio.rendered(count=count, channel=slotted(missed=policy))
    approve(studio, *keys)
    for key in keys:
        await to_post(studio, key)
    studio.world.write("UPDATE phantoms.bookings SET at = clock_timestamp() - interval '2 hours' - video_id * interval '1 second'")
    studio.world.write("UPDATE phantoms.stages SET ready_at = clock_timestamp() - interval '3 hours' WHERE stage = 'youtube/post'")
    return keys


def missed_rows(world: World) -> list[Any]:
    return [dict(row) for row in world.rows("SELECT platform, why, policy FROM phantoms.missed_slots ORDER BY id")]


async def test_a_missed_slot_is_posted_as_soon_as_possible_by_default(studio: Studio) -> None:
    [key] = await missed(studio, "post")
    assert (await post(studio, key)).output.remote_id
    [row] = missed_rows(studio.world)
    assert row["policy"] == "post"
    assert "Phantoms was not running" in row["why"]


async def test_two_missed_posts_keep_their_distance(studio: Studio) -> None:
    first, second = await missed(studio, "post", count=2)
    assert (await post(studio, first)).output.remote_id
    with pytest.raises(NotYet, match="goes out at"):
        await post(studio, second)
    studio.clock.time += timedelta(minutes=31)
    assert (await post(studio, second)).output.remote_id


async def test_a_missed_slot_waits_for_the_next_one(studio: Studio) -> None:
    [key] = await missed(studio, "next")
    with pytest.raises(NotYet, match="goes out at"):
        await post(studio, key)
    assert [(at, state) for _, _, at, _, state in bookings(studio.world)] == [(next_times(1, 12, 18)[0], "booked")]
    assert [row["policy"] for row in missed_rows(studio.world)] == ["next"]


async def decides_meanwhile(studio: Studio, monkeypatch: pytest.MonkeyPatch, key: str, deed: Callable[[], object]) -> PostTime:
    """Let a runner decide about the missed slot of the post, while a person does something that begins in the middle of it."""
    _, claim = await studio.claim(key)
    said, why = list[BaseException](), store_bookings._why

    def person() -> None:
        try:
            deed()
        except InvalidInput as error:
            said.append(error)

    acting = threading.Thread(target=person)

    def person_first(known: RowMapping, at: datetime) -> str:
        acting.start()
        while acting.is_alive() and not studio.world.blocked():
            time.sleep(0.01)
        return why(known, at)

    monkeypatch.setattr(store_bookings, "_why", person_first)
    times = PostgresPostTimes(studio.world.async_engine, limits={}, clock=studio.clock)
    await times.of(claim)
    await asyncio.to_thread(acting.join)
    monkeypatch.undo()
    if said:
        raise said[0]
    return await times.of(claim)


async def test_a_new_time_in_the_brief_stands_when_a_runner_decides_about_the_missed_slot_at_that_moment(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runner booked the post again after the edit, which was told to be done, and the post went out at once."""
    [key] = await missed(studio, "post")
    later = datetime.now(UTC) + timedelta(days=9)
    edits = BriefEdits(studio.world.engine)
    found = await decides_meanwhile(studio, monkeypatch, key, lambda: edits.edit(key, BriefChanges(publish_at=later), by="test"))
    assert bookings(studio.world) == []
    assert found.at == later


@pytest.mark.parametrize("when", ["now", "cancel"])
async def test_a_person_who_decides_about_a_missed_slot_that_a_runner_has_just_moved_is_told_so(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The form was compared with the booking before the runner's decision, so the person changed one that they had not seen."""
    [key] = await missed(studio, "next")
    [(_, _, at, _, state)] = bookings(studio.world)
    changes, seen = BookingChanges(studio.world.engine), {YOUTUBE: booking_stamp(at, state)}

    def decide() -> None:
        if when == "cancel":
            changes.cancel(key, Actor("ann", "desk"), seen=seen)
        else:
            changes.move(key, "now", Actor("ann", "desk"), seen=seen)

    with pytest.raises(ChangedMeanwhile, match="was changed in the meantime"):
        await decides_meanwhile(studio, monkeypatch, key, decide)
    assert [(at, kind, state) for _, _, at, kind, state in bookings(studio.world)] == [(next_times(1, 12, 18)[0], "slot", "booked")]
    assert studio.world.rows("SELECT 1 FROM phantoms.audit_log WHERE action IN ('move post', 'cancel post')") == []


async def test_a_missed_slot_waits_for_a_person(studio: Studio) -> None:
    [key] = await missed(studio, "ask")
    for _ in range(2):  # it is written down once
        with pytest.raises(WaitsForPerson, match="its slot was missed"):
            await post(studio, key)
    assert [row["policy"] for row in missed_rows(studio.world)] == ["ask"]
    assert studio.posts() == []


async def test_a_post_that_is_a_little_late_goes_out(studio: Studio) -> None:
    [key] = await missed(studio, "ask")
    studio.world.write("UPDATE phantoms.bookings SET at = clock_timestamp() - interval '20 minutes'")
    assert (await post(studio, key)).output.remote_id
    assert missed_rows(studio.world) == []


async def test_a_post_that_has_begun_is_finished_however_late_it_is(studio: Studio) -> None:
    [key] = await missed(studio, "ask")
    _, claim = await studio.claim(key)
    publish = studio.publish()
    journal = await publish._ledgers.post(
        claim, account="youtube-account", marker=f"{key}-youtube", video=await studio.media_file(key), caption="", sandbox=True
    )
    await journal.save(PostState.OPENED, handle={}, offset=0)
    assert (await post(studio, key)).output.remote_id
    assert missed_rows(studio.world) == []


async def test_the_reason_of_a_missed_slot_is_what_the_post_waited_for(studio: Studio) -> None:
    [key] = await missed(studio, "next")
    studio.world.write(
        "UPDATE phantoms.stages SET state = 'deferred', reason = 'youtube account main waits: reconnect it', "
        "retry_at = clock_timestamp() WHERE stage = 'youtube/post'"
    )
    with pytest.raises(NotYet, match="goes out at"):
        await post(studio, key)
    assert [row["why"] for row in missed_rows(studio.world)] == ["youtube account main waits: reconnect it"]


async def test_a_post_that_was_ready_too_late_says_so(studio: Studio) -> None:
    [key] = await missed(studio, "ask")
    studio.world.write("UPDATE phantoms.stages SET ready_at = clock_timestamp() WHERE stage = 'youtube/post'")
    with pytest.raises(WaitsForPerson, match="the post was ready only at"):
        await post(studio, key)


async def test_a_video_that_is_booked_for_later_keeps_its_booking_when_it_is_booked_again(studio: Studio) -> None:
    [key] = await studio.rendered(channel=slotted())
    approve(studio, key)
    before = studio.world.rows("SELECT * FROM phantoms.bookings")
    [video] = studio.world.rows("SELECT id FROM phantoms.videos")
    with studio.world.engine.begin() as connection:
        assert book_approved(connection, [video["id"]], {}) == []
    assert studio.world.rows("SELECT * FROM phantoms.bookings") == before
