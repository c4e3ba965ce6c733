"""A post that repeats another one of its account waits until a person allows it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from phantoms_dagster.domain.brief_changes import BriefChanges
from phantoms_dagster.domain.claims import StageTask
from phantoms_dagster.domain.errors import InvalidInput, NotYet, WaitsForPerson
from phantoms_dagster.domain.models import Channel, Platform
from phantoms_dagster.domain.posting_slots import PostingSlot, RepeatRule
from phantoms_dagster.store.attention import AttentionBoard
from phantoms_dagster.store.audit import Actor, AuditLog
from phantoms_dagster.store.booking_changes import BookingChanges
from phantoms_dagster.store.brief_edits import BriefEdits
from phantoms_dagster.store.decisions import Decisions
from phantoms_dagster.store.judgement import Decided
from phantoms_dagster.store.near_duplicates import Repetition, repetition_warnings
from phantoms_dagster_tests.integration.publishing_world import Studio, open_studio
from phantoms_dagster_tests.integration.stage_world import CHANNEL, World, open_world

BOB = Actor("bob", "cli")
DAILY = (PostingSlot(time="12:00"), PostingSlot(time="18:00"))


@pytest.fixture
async def studio(database_url: str, tmp_path: Path) -> AsyncIterator[Studio]:
    async with open_world(database_url) as world, open_studio(world, tmp_path) as opened:
        yield opened


def careful(*, days: int = 30, **changes: Any) -> Channel:
    return CHANNEL.model_copy(update={"repeats": RepeatRule(days=days), **changes})


def approve(studio: Studio, *keys: str, **options: Any) -> list[Decided]:
    decisions = Decisions(studio.world.engine, **options)
    found = decisions.decide_all(list(keys), approved=True, reviewer="ann", via="cli")
    assert all(isinstance(one, Decided) for one in found)
    return found  # type: ignore[return-value]


def states(world: World) -> dict[str, tuple[str, str, str]]:
    rows = world.rows(
        """SELECT v.key, b.state, b.kind, b.note FROM phantoms.bookings b JOIN phantoms.videos v ON v.id = b.video_id
        ORDER BY v.id"""
    )
    return {row["key"]: (row["state"], row["kind"], row["note"]) for row in rows}


def reword(world: World, key: str, caption: str) -> None:
    """Give the approved words of a video another caption, as if its script had been another one."""
    [row] = world.rows(
        "SELECT d.id, d.words FROM phantoms.approvals d JOIN phantoms.videos v ON v.id = d.video_id WHERE v.key = :key", key=key
    )
    words = json.dumps([{**post, "title": caption, "caption": caption} for post in row["words"]])
    world.write("UPDATE phantoms.approvals SET words = CAST(:words AS jsonb) WHERE id = :id", words=words, id=row["id"])


async def post(studio: Studio, key: str) -> Any:
    _, claim = await studio.claim(key)
    return await studio.publish()(StageTask(claim, await studio.world.store().attempt(claim)))


async def test_the_second_of_two_videos_with_the_same_words_waits(studio: Studio) -> None:
    first, second = await studio.rendered(count=2, channel=careful())
    one, other = approve(studio, first, second)
    assert one.warnings == ()
    [warning] = [said for said in other.warnings if said.startswith("YouTube: ")]
    assert f"100 % of its words are those of {first} on the same account" in warning
    assert f"phantoms calendar override {second}" in warning
    assert set(states(studio.world)) == {second}
    await studio.approved(second)
    await studio.varied(second)
    with pytest.raises(WaitsForPerson, match="100 % of its words"):
        await post(studio, second)
    assert studio.posts() == []
    [item] = [one for one in AttentionBoard(studio.world.engine).read() if one.id == "calendar:repeat"]
    assert item.keys == (second,)


async def test_a_person_allows_it_and_the_audit_log_says_who(studio: Studio) -> None:
    first, second = await studio.rendered(count=2, channel=careful())
    approve(studio, first, second)
    await studio.approved(second)
    await studio.varied(second)
    changes = BookingChanges(studio.world.engine)
    changes.override(second, BOB, reason="part two")
    studio.clock.time = datetime.now(UTC)
    assert (await post(studio, second)).output.remote_id
    [entry] = [row for row in AuditLog(studio.world.engine).page(subject=second) if row.action == "allow repetition"]
    assert (entry.who, (entry.after or {})["reason"]) == ("bob", "part two")
    assert first in (entry.before or {})["youtube"]["note"]
    with pytest.raises(InvalidInput, match=f"no post of {first} waits to be allowed"):
        changes.override(first, BOB)


async def test_the_same_file_counts_even_with_other_words(studio: Studio) -> None:
    first, second = await studio.rendered(count=2, channel=careful())
    approve(studio, first)
    reword(studio.world, first, "Something else entirely about volcanoes")
    studio.world.write(
        """UPDATE phantoms.stages s SET output = (SELECT o.output FROM phantoms.stages o WHERE o.stage = s.stage
            ORDER BY o.video_id LIMIT 1) WHERE s.stage = 'rendered_video'"""
    )
    [decided] = approve(studio, second)
    assert any(f"the same file as {first}" in warning for warning in decided.warnings)


async def test_other_words_are_no_repetition(studio: Studio) -> None:
    first, second = await studio.rendered(count=2, channel=careful())
    approve(studio, first)
    reword(studio.world, first, "Something else entirely about volcanoes")
    approve(studio, second)
    assert states(studio.world) == {}


async def test_without_the_rule_nothing_is_compared(studio: Studio) -> None:
    keys = await studio.rendered(count=2)
    approve(studio, *keys)
    assert states(studio.world) == {}


@pytest.mark.parametrize(("days_ago", "waits"), [(6, True), (8, False)])
async def test_a_published_post_counts_for_the_channels_days(studio: Studio, days_ago: int, waits: bool) -> None:
    first, second = await studio.rendered(count=2, channel=careful(days=7))
    approve(studio, first)
    await studio.approved(first)
    await studio.varied(first)
    await post(studio, first)
    studio.world.write("UPDATE phantoms.stages SET state = 'done' WHERE stage = 'youtube/post' AND video_id = 1")
    studio.world.write_post("UPDATE phantoms.posts SET published_at = now() - make_interval(days => :days)", days=days_ago)
    approve(studio, second, sandboxed=lambda _: True)
    assert bool(states(studio.world)) is waits
    if waits:
        [(_, _, note)] = states(studio.world).values()
        out = datetime.now(UTC) - timedelta(days=6)
        assert f"on the same account, whose time is {out.day} {out:%b %Y}, " in note


async def test_posts_to_the_sandbox_and_real_ones_are_not_compared(studio: Studio) -> None:
    first, second = await studio.rendered(count=2, channel=careful())
    approve(studio, first)
    await studio.approved(first)
    await studio.varied(first)
    await post(studio, first)
    studio.world.write("UPDATE phantoms.stages SET state = 'done' WHERE stage = 'youtube/post' AND video_id = 1")
    approve(studio, second, sandboxed=lambda _: False)
    assert states(studio.world) == {}


async def test_a_planned_post_counts_by_its_time(studio: Studio) -> None:
    first, second, third = await studio.rendered(count=3, channel=careful(days=3))
    edits = BriefEdits(studio.world.engine)
    edits.edit(first, BriefChanges(publish_at=datetime.now(UTC) + timedelta(days=10)), by="test")
    edits.edit(second, BriefChanges(publish_at=datetime.now(UTC) + timedelta(days=12)), by="test")
    approve(studio, first)
    approve(studio, second)
    approve(studio, third)  # ten days before the first one
    assert {key: state[:2] for key, state in states(studio.world).items()} == {second: ("repeat", "fixed")}


async def test_a_repetition_keeps_its_slot_and_moves_with_it(studio: Studio) -> None:
    first, second, third = await studio.rendered(count=3, channel=careful(slots=DAILY))
    approve(studio, first, second)
    reword(studio.world, first, "Volcanoes are hot")
    reword(studio.world, second, "Rivers are long")
    approve(studio, third)
    assert [state for state, _, _ in states(studio.world).values()] == ["booked", "repeat", "booked"]
    times = studio.world.rows("SELECT at FROM phantoms.bookings ORDER BY video_id")
    assert [row["at"] for row in times] == sorted({row["at"] for row in times})
    changes = BookingChanges(studio.world.engine)
    for when in ("next", "now"):
        [moved] = changes.move(second, when, BOB).booked
        assert f"but only if `phantoms calendar override {second}` allows it" in moved.said
        assert states(studio.world)[second][0] == "repeat"
    changes.move(second, datetime.now(UTC) + timedelta(days=40), BOB)
    changes.override(second, BOB)
    assert states(studio.world)[second][:2] == ("booked", "fixed")


def test_posts_of_a_video_with_the_same_note_share_a_warning() -> None:
    youtube, tiktok, bluesky = Platform("youtube"), Platform("tiktok"), Platform("bluesky")
    found = [Repetition("a", youtube, "same"), Repetition("b", youtube, "same"), Repetition("a", tiktok, "same")]
    assert repetition_warnings([*found, Repetition("a", bluesky, "other")]) == {
        "a": (
            "YouTube, TikTok: same. These posts wait until you allow it with `phantoms calendar override a`",
            "Bluesky: other. It waits until you allow it with `phantoms calendar override a`",
        ),
        "b": ("YouTube: same. It waits until you allow it with `phantoms calendar override b`",),
    }


async def test_a_repetition_that_is_allowed_after_its_slot_takes_the_next_one(studio: Studio) -> None:
    first, second = await studio.rendered(count=2, channel=careful(slots=DAILY))
    approve(studio, first, second)
    await studio.approved(second)
    await studio.varied(second)
    studio.world.write("UPDATE phantoms.bookings SET at = now() - interval '3 hours' WHERE state = 'repeat'")
    BookingChanges(studio.world.engine).override(second, BOB)
    with pytest.raises(NotYet, match="goes out at"):
        await post(studio, second)
    [row] = studio.world.rows("SELECT why, policy FROM phantoms.missed_slots")
    assert "until bob allowed it" in row["why"]
