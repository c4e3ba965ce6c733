"""`phantoms calendar`: what it lists, and moving and cancelling posts until the commit point."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from phantoms_dagster.cli.main import app
from phantoms_dagster.domain.claims import StageTask
from phantoms_dagster.domain.errors import NotYet, WaitsForPerson
from phantoms_dagster.domain.models import Channel, Platform
from phantoms_dagster.domain.posting_slots import PostingSlot
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.store.attention import AttentionBoard
from phantoms_dagster.store.audit import AuditLog
from phantoms_dagster.store.decisions import Decisions
from phantoms_dagster.store.outlook import Outlook
from phantoms_dagster_tests.integration.publishing_world import Studio, open_studio
from phantoms_dagster_tests.integration.stage_world import CHANNEL, World, open_world

YOUTUBE, TIKTOK = Platform("youtube"), Platform("tiktok")


@pytest.fixture
async def studio(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Studio]:
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", database_url)
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path / "home"))
    async with open_world(database_url) as world, open_studio(world, tmp_path) as opened:
        yield opened


async def command(*arguments: str) -> Any:
    """`phantoms calendar`, in a thread, as a process of its own would run it."""
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, ["calendar", *arguments], env={"COLUMNS": "200"}))


async def ok(*arguments: str) -> Any:
    result = await command(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def slotted(*times: str, **changes: Any) -> Channel:
    slots = tuple(PostingSlot(time=one) for one in times or ("12:00", "18:00"))
    return CHANNEL.model_copy(update={"slots": slots, **changes})


async def booked(studio: Studio, *, count: int = 1, channel: Channel | None = None) -> list[str]:
    """Posts that are ready and wait for their slots."""
    keys = await studio.rendered(count=count, channel=channel or slotted())
    Decisions(studio.world.engine).decide_all(keys, approved=True, reviewer="ann", via="cli")
    for key in keys:
        await studio.approved(key)
        await studio.varied(key)
    return keys


def booking(world: World, key: str, platform: str = "youtube") -> tuple[datetime, str, str]:
    [row] = world.rows(
        """SELECT b.at, b.kind, b.state FROM phantoms.bookings b JOIN phantoms.videos v ON v.id = b.video_id
        WHERE v.key = :key AND b.platform = :platform""",
        key=key,
        platform=platform,
    )
    return row["at"], row["kind"], row["state"]


async def post(studio: Studio, key: str) -> Any:
    _, claim = await studio.claim(key)
    return await studio.publish()(StageTask(claim, await studio.world.store().attempt(claim)))


def pretend(studio: Studio, key: str, state: PostState) -> None:
    """Put the post of a video into that state of the ledger."""
    studio.world.write_post(
        """INSERT INTO phantoms.posts (video_id, platform, account, marker, video_sha256, caption_sha256, state)
        SELECT id, 'youtube', 'youtube-account', key, '', '', :state FROM phantoms.videos WHERE key = :key""",
        key=key,
        state=str(state),
    )


async def test_the_list_shows_what_is_booked_fixed_and_free(studio: Studio) -> None:
    first, second = await booked(studio, count=2)
    later = (datetime.now(UTC) + timedelta(days=2)).replace(hour=15, minute=0, second=0, microsecond=0)
    [fixed] = studio.world.add(1, publish_at=later)
    found = (await ok())["lines"]
    assert [line["at"] for line in found] == sorted(line["at"] for line in found)
    of_youtube = [line for line in found if line["platform"] == "youtube"]
    assert [line["key"] for line in of_youtube if line["state"] == "booked"] == [first, second]
    assert [(line["key"], datetime.fromisoformat(line["at"])) for line in found if line["state"] == "fixed"] == [(fixed, later)]
    free = [line for line in of_youtube if line["state"] == "free"]
    assert len(free) == 2 * 7 - 2
    assert {line["account"] for line in of_youtube} == {"youtube-account"}
    assert len([line for line in (await ok("--days", "14"))["lines"] if line["state"] == "free"]) > len(free)
    shown = (await command()).output
    assert f"\n  {first}\n" in shown
    assert "  free\n" not in shown
    every = [line for line in found if line["state"] == "free"]
    assert f"{len(every)} slots are free, the first on" in shown
    assert (await command("--free")).output.count("  free\n") == len(every)


async def test_a_draft_and_a_post_that_was_taken_down_are_listed_as_such(studio: Studio) -> None:
    drafted, removed = await booked(studio, count=2)
    pretend(studio, drafted, PostState.HANDED_OVER)
    pretend(studio, removed, PostState.CONFIRMED)
    studio.world.write("UPDATE phantoms.bookings SET at = clock_timestamp() - interval '5 hours'")
    studio.world.write_post("UPDATE phantoms.posts SET published_at = clock_timestamp(), remote_id = 'r' WHERE state = 'confirmed'")
    states = {line["key"]: (line["state"], line["why"]) for line in (await ok())["lines"] if line["key"]}
    assert states == {drafted: ("drafted", "the draft waits for its creator"), removed: ("posted", "")}
    studio.world.write(
        "INSERT INTO phantoms.post_changes (post_id, at, state, evidence) SELECT id, now(), 'gone', '' FROM phantoms.posts"
        " WHERE state = 'confirmed'"
    )
    states = {line["key"]: (line["state"], line["why"]) for line in (await ok())["lines"] if line["key"]}
    assert states[removed] == ("removed", "it is no longer there")


async def test_a_post_that_waits_for_a_person_is_not_announced(studio: Studio) -> None:
    first, second = await booked(studio, count=2)
    assert [step.key for step in Outlook(studio.world.engine).next_steps()] == [first]
    await ok("cancel", first)
    assert [step.key for step in Outlook(studio.world.engine).next_steps()] == [second]


async def test_a_channel_is_chosen_and_a_wrong_one_is_refused(studio: Studio) -> None:
    await booked(studio)
    studio.world.catalogue.put_channels([slotted(name="other", title="Other")])
    assert {line["channel"] for line in (await ok())["lines"]} == {"facts", "other"}
    refused = await command("--channel", "nobody")
    assert refused.exit_code == 2
    assert "there is no channel 'nobody'" in refused.output


async def test_a_post_is_moved_to_a_time_in_its_channels_zone(studio: Studio) -> None:
    [key] = await booked(studio, channel=slotted(timezone="Europe/Berlin"))
    day = (datetime.now(UTC) + timedelta(days=20)).strftime("%Y-%m-%d")
    await ok("move", key, f"{day}T18:30")
    at, kind, state = booking(studio.world, key)
    assert (kind, state) == ("fixed", "booked")
    assert at.hour in (16, 17)  # 18:30 in Berlin, in summer or in winter
    assert studio.world.row(key, "youtube/post")["ready_at"] == at
    [entry] = [row for row in AuditLog(studio.world.engine).page(subject=key) if row.action == "move post"]
    assert (entry.after or {})["youtube"]["at"] == at.isoformat()
    utc = f"{day}T18:30+00:00"
    await ok("move", key, utc)
    assert booking(studio.world, key)[0] == datetime.fromisoformat(utc)


async def test_next_moves_to_the_free_slot_after_the_present_one(studio: Studio) -> None:
    first, second = await booked(studio, count=2)
    before, taken = booking(studio.world, first)[0], booking(studio.world, second)[0]
    await ok("move", first, "next")
    after = booking(studio.world, first)[0]
    assert before < taken < after
    # The slot that it left is free again.
    await ok("cancel", second)
    assert {line["at"] for line in (await ok())["lines"] if line["state"] == "free"} >= {before.isoformat(), taken.isoformat()}


async def test_one_platform_is_moved_alone(studio: Studio) -> None:
    [key] = await studio.rendered(channel=slotted(), platforms=(YOUTUBE, TIKTOK))
    Decisions(studio.world.engine).decide(key, approved=True, reviewer="ann", via="cli")
    same = booking(studio.world, key)[0]
    await ok("move", key, "next", "--platform", "tiktok")
    assert booking(studio.world, key)[0] == same
    assert booking(studio.world, key, "tiktok")[0] > same
    assert "'instagram' is not" not in (await command("move", key, "next", "--platform", "instagram")).output
    assert "is not posted on Instagram" in (await command("move", key, "next", "--platform", "instagram")).output
    assert "'vine' is not a platform" in (await command("move", key, "next", "--platform", "vine")).output


async def test_now_goes_out_at_once(studio: Studio) -> None:
    [key] = await booked(studio)
    with pytest.raises(NotYet, match="goes out at"):
        await post(studio, key)
    await ok("move", key, "now")
    studio.clock.time = datetime.now(UTC)
    assert (await post(studio, key)).output.remote_id


async def test_a_cancelled_post_waits_until_it_is_put_back(studio: Studio) -> None:
    [key] = await booked(studio)
    await ok("cancel", key, "--reason", "waits for the lawyer")
    studio.clock.time += timedelta(days=3)
    with pytest.raises(WaitsForPerson, match="waits for the lawyer"):
        await post(studio, key)
    assert studio.posts() == []
    await ok("move", key, "now")
    studio.clock.time = datetime.now(UTC)
    assert (await post(studio, key)).output.remote_id


@pytest.mark.parametrize("state", [PostState.COMMITTING, PostState.UNKNOWN, PostState.HANDED_OVER])
async def test_a_post_past_its_commit_point_is_neither_moved_nor_cancelled(studio: Studio, state: PostState) -> None:
    [key] = await booked(studio)
    pretend(studio, key, state)
    before = booking(studio.world, key)
    for arguments in (["move", key, "next"], ["move", key, "now"], ["cancel", key]):
        refused = await command(*arguments)
        assert refused.exit_code == 2, refused.output
        assert f"past its commit point ({state})" in refused.output
    assert booking(studio.world, key) == before


@pytest.mark.parametrize("state", [PostState.OPENED, PostState.UPLOADING, PostState.FAILED])
async def test_a_post_before_its_commit_point_is_moved(studio: Studio, state: PostState) -> None:
    [key] = await booked(studio)
    pretend(studio, key, state)
    before = booking(studio.world, key)[0]
    await ok("move", key, "next")
    assert booking(studio.world, key)[0] > before


async def test_a_post_that_is_moved_while_it_is_uploaded_does_not_go_out(studio: Studio) -> None:
    """A person moves it after its upload was allowed, and the engine asks again before the request that publishes."""
    [key] = await booked(studio)
    await ok("move", key, "now")
    studio.clock.time = datetime.now(UTC)
    _, claim = await studio.claim(key)
    publish = studio.publish()
    moved: list[str] = []
    asked = publish._may_go

    async def moves_first(task: StageTask) -> None:
        await asked(task)
        states = [row["state"] for row in studio.world.rows("SELECT state FROM phantoms.posts")]
        if states and not moved:
            moved.append(states[0])
            await ok("move", key, "next")

    publish._may_go = moves_first  # type: ignore[method-assign]
    with pytest.raises(NotYet, match="goes out at"):
        await publish(StageTask(claim, await studio.world.store().attempt(claim)))
    assert moved == ["intent"]
    assert [row["state"] for row in studio.world.rows("SELECT state FROM phantoms.posts")] == ["uploading"]
    assert studio.posts() == []
    studio.clock.time = booking(studio.world, key)[0]
    assert (await post(studio, key)).output.remote_id
    assert len(studio.posts()) == 1


async def test_a_post_that_is_cancelled_while_it_is_uploaded_can_be_put_back(studio: Studio) -> None:
    """Its video was then private at YouTube, the ledger said `committing`, and no command moved or cancelled it any more."""
    [key] = await booked(studio)
    await ok("move", key, "now")
    studio.clock.time = datetime.now(UTC)
    _, claim = await studio.claim(key)
    publish = studio.publish()
    asked, cancelled = publish._may_go, asyncio.Event()

    async def is_cancelled_first(task: StageTask) -> None:
        await asked(task)
        if not cancelled.is_set():
            cancelled.set()
            await ok("cancel", key, "--reason", "waits for the lawyer")

    publish._may_go = is_cancelled_first  # type: ignore[method-assign]
    with pytest.raises(WaitsForPerson, match="waits for the lawyer"):
        await publish(StageTask(claim, await studio.world.store().attempt(claim)))
    assert studio.sandbox.calls["youtube.open"] == 1
    assert studio.posts() == []
    await ok("move", key, "next")
    await ok("cancel", key)
    await ok("move", key, "now")
    studio.clock.time = datetime.now(UTC)
    assert (await post(studio, key)).output.remote_id
    assert len(studio.posts()) == 1
    assert studio.sandbox.calls["youtube.open"] == 1


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("yesterday", "is not a date with a time"),
        ("2020-01-01T12:00", "that time is past"),
        ("2020-01-01T12:00+00:00", "that time is past"),
    ],
)
async def test_a_wrong_time_is_refused(studio: Studio, when: str, said: str) -> None:
    [key] = await booked(studio)
    refused = await command("move", key, when)
    assert (refused.exit_code, said in refused.output) == (2, True), refused.output


async def test_next_needs_slots(studio: Studio) -> None:
    [key] = await studio.ready_to_post()
    refused = await command("move", key, "next")
    assert "channel facts has no slots for YouTube" in refused.output
    assert refused.exit_code == 2


async def test_moving_to_a_time_beside_another_post_warns(studio: Studio) -> None:
    first, second = await booked(studio, count=2)
    near = booking(studio.world, second)[0] + timedelta(minutes=5)
    found = await ok("move", first, near.isoformat())
    assert any("On YouTube that is" in warning for warning in found["warnings"])


async def test_only_the_posts_that_are_moved_are_warned_about(studio: Studio) -> None:
    both = (Platform("youtube"), Platform("bluesky"))
    studio.world.catalogue.put_channels([slotted(accounts={Platform("youtube"): "main", Platform("bluesky"): "main"})])
    first, second = studio.world.add(2, platforms=both)
    near = datetime.now(UTC) + timedelta(days=20)
    await ok("move", second, near.isoformat())
    found = await ok("move", first, (near + timedelta(minutes=5)).isoformat(), "--platform", "bluesky")
    assert [warning for warning in found["warnings"] if "On Bluesky that is" in warning]
    assert not [warning for warning in found["warnings"] if "YouTube" in warning]


async def test_a_missed_slot_is_listed_needs_attention_and_is_decided_with_one_command(studio: Studio) -> None:
    [key] = await booked(studio, channel=slotted(missed="ask"))
    studio.world.write("UPDATE phantoms.bookings SET at = clock_timestamp() - interval '5 hours'")
    [line] = [one for one in (await ok())["lines"] if one["key"] == key]
    assert line["state"] == "late"
    assert "the slot is missed" in line["why"]
    store, claim = await studio.claim(key)
    with pytest.raises(WaitsForPerson) as caught:
        await studio.publish()(StageTask(claim, await store.attempt(claim)))
    assert f"phantoms calendar move {key} now" in str(caught.value)
    found = await ok()
    assert [one["state"] for one in found["lines"] if one["key"] == key] == ["missed"]
    assert [(one["key"], one["then"]) for one in found["missed"]] == [(key, "left for a person to decide")]
    [item] = [one for one in AttentionBoard(studio.world.engine).read() if one.id == "calendar:missed"]
    assert (item.keys, item.next_step, item.alert) == ((key,), "phantoms calendar", True)
    await ok("move", key, "next")
    assert booking(studio.world, key)[2] == "booked"
    assert not [one for one in AttentionBoard(studio.world.engine).read() if one.id == "calendar:missed"]


async def test_approving_says_which_slots_the_posts_took(studio: Studio) -> None:
    first, second = await studio.rendered(count=2, channel=slotted())

    async def approve(*arguments: str) -> Any:
        return await asyncio.to_thread(lambda: CliRunner().invoke(app, ["approve", *arguments], env={"COLUMNS": "200"}))

    shown = await approve(first)
    assert shown.exit_code == 0, shown.output
    at = booking(studio.world, first)[0]
    assert f"YouTube: {at:%a} {at.day} {at:%b %Y, %H:%M} UTC" in shown.output
    answer = await approve(second, "--json")
    [decided] = json.loads(answer.stdout)["decided"]
    assert [datetime.fromisoformat(slot["at"]) for slot in decided["booked"]] == [booking(studio.world, second)[0]]
    assert decided["goes_out"] == decided["booked"][0]["at"]


async def test_approving_a_video_whose_posts_were_taken_out_announces_none_of_them(studio: Studio) -> None:
    [key] = await studio.rendered(channel=slotted())
    await ok("cancel", key)
    shown = await asyncio.to_thread(lambda: CliRunner().invoke(app, ["approve", key], env={"COLUMNS": "200"}))
    assert shown.exit_code == 0, shown.output
    assert "posts it" not in shown.output
    assert "`phantoms calendar` says why and what you can do" in shown.output
    assert f"phantoms calendar move {key} now" in (await command()).output
