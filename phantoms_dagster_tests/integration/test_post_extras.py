"""Caption tracks and thumbnails after the publication: exactly one of each, wherever a process dies. The post stays as it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from phantoms_dagster.cli.main import app
from phantoms_dagster.defs.post_extras import post_extras_job, post_extras_sensor
from phantoms_dagster.domain.errors import Rejected
from phantoms_dagster.domain.models import Channel
from phantoms_dagster.domain.ports import ExtraJob
from phantoms_dagster.platforms.youtube.extras import YouTubeExtras
from phantoms_dagster.production.post_extras import Adding, ExtrasRound
from phantoms_dagster.sandbox.core import Fault
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.attention import AttentionBoard
from phantoms_dagster.store.post_extras import PostExtrasTable
from phantoms_dagster.wiring import Services
from phantoms_dagster_tests.integration.publishing_world import FakeTokens, Studio, open_studio
from phantoms_dagster_tests.integration.stage_world import CHANNEL, World, open_world
from phantoms_dagster_tests.sandbox_thread import sandbox_thread

BOTH = {"captions": True, "thumbnail": True}


class Died(BaseException):
    """The process died here."""


class Extras:
    """A studio whose YouTube posts get extras."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.table = PostExtrasTable(studio.world.engine)
        self.dies: str | None = None
        self.stops: asyncio.Event | None = None  # a process is stopped before its request until this is set
        self.began = asyncio.Event()

    async def posted(self, choices: dict[str, Any] = BOTH, *, count: int = 1) -> list[str]:
        """Published videos, whose channel wants these extras."""
        channel = Channel.model_validate({**CHANNEL.model_dump(), "youtube": choices})
        keys = await self.studio.ready_to_post(count=count, channel=channel)
        for key in keys:
            await self.picture(key)
            await self.studio.make(key, "youtube/post", self.studio.publish())
        return keys

    async def picture(self, key: str) -> None:
        """A picture of the render, in the media store."""
        file = self.studio.folder / f"{key}.jpg"
        await asyncio.to_thread(file.write_bytes, b"\xff\xd8\xff\xe0" + key.encode())
        kept = await self.studio.store.add(file)
        self.studio.world.write(
            """UPDATE phantoms.stages SET output = jsonb_set(output, '{thumbnail}', CAST(:file AS jsonb))
            WHERE stage = 'rendered_video' AND video_id = (SELECT id FROM phantoms.videos WHERE key = :key)""",
            file=kept.model_dump_json(),
            key=key,
        )

    async def round(self) -> ExtrasRound:
        """One run of the job, by a process that may die."""
        s, outer, done = self.studio, self, ExtrasRound()

        class Mortal(YouTubeExtras):
            async def add(self, extra: ExtraJob) -> str:
                if outer.dies == "before the request":
                    raise Died
                if outer.stops is not None:
                    outer.began.set()
                    await outer.stops.wait()
                    raise Rejected("YouTube refused the track", provider="youtube")
                said = await super().add(extra)
                if outer.dies == "after the answer":
                    raise Died
                return said

        adder = Mortal(client=s.client, base_url=s.base_url, tokens=FakeTokens(), clock=s.clock, sandbox=True)
        await Adding(self.table, {adder.platform: adder}, s.store, s.clock).round(done, sandboxed=["youtube"])
        return done

    def later(self) -> None:
        """Every waiting try is due."""
        self.studio.world.write("UPDATE phantoms.post_extras SET due_at = clock_timestamp() WHERE due_at IS NOT NULL")

    @property
    def states(self) -> dict[str, str]:
        return {row["name"]: row["state"] for row in self.studio.world.rows("SELECT name, state FROM phantoms.post_extras")}

    def made(self, kind: str) -> list[dict[str, Any]]:
        return [entry for entry in self.studio.sandbox.ledger if entry["kind"] == f"youtube.{kind}"]


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
async def extras(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> AsyncIterator[Extras]:
    async with open_studio(world, tmp_path) as opened:
        opened.sandbox.config["youtube.caption_seconds"] = 0
        monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
        monkeypatch.setenv("PHANTOMS_DATABASE_URL", world.url)
        monkeypatch.setenv("PHANTOMS_REDIS_URL", redis_url)
        yield Extras(opened)


async def test_a_published_video_gets_its_captions_and_its_thumbnail_once(extras: Extras) -> None:
    [key] = await extras.posted()
    done = await extras.round()
    assert {(extra.video_key, extra.name) for extra, _ in done.added} == {(key, "captions"), (key, "thumbnail")}
    [post] = extras.studio.posts()
    [track] = extras.made("caption")
    assert (track["video"], track["name"], track["language"]) == (post["remote_id"], f"{key}-youtube", "en")
    assert len(extras.made("thumbnail")) == 1
    extras.later()
    assert extras.table.due(["youtube"], most=9) == []
    assert (await extras.round()).added == []
    assert len(extras.made("caption")) == 1


async def test_a_channel_that_chose_nothing_gets_nothing(extras: Extras) -> None:
    await extras.posted({"notify_subscribers": False})
    assert extras.table.due(["youtube"], most=9) == []
    assert extras.studio.world.rows("SELECT extras FROM phantoms.posts")[0]["extras"] == []


async def test_nothing_is_added_before_the_post_is_confirmed_or_after_it_was_taken_down(extras: Extras) -> None:
    await extras.posted()
    world = extras.studio.world
    assert len(extras.table.due(["youtube"], most=9)) == 2
    assert extras.table.due([], most=9) == []  # the real YouTube does not know posts of the sandbox
    world.write("INSERT INTO phantoms.post_changes (post_id, state, evidence) SELECT id, 'taken_down', '' FROM phantoms.posts")
    assert extras.table.due(["youtube"], most=9) == []
    world.write("DELETE FROM phantoms.post_changes")
    world.write_post("UPDATE phantoms.posts SET state = 'published'")
    assert extras.table.due(["youtube"], most=9) == []


@pytest.mark.parametrize("dies", ["before the request", "after the answer"])
async def test_a_process_that_dies_leaves_exactly_one_track(extras: Extras, dies: str) -> None:
    await extras.posted({"captions": True})
    extras.dies = dies
    with pytest.raises(BaseExceptionGroup):
        await extras.round()
    extras.dies = None
    assert (await extras.round()).added == []  # the try of the dead process may still be under way
    extras.later()
    [(extra, _)] = (await extras.round()).added
    assert extra.tries == 1
    assert len(extras.made("caption")) == 1
    assert extras.states == {"captions": "added"}


async def test_of_two_processes_only_one_tries(extras: Extras) -> None:
    await extras.posted(count=3)
    rounds = await asyncio.gather(*(extras.round() for _ in range(3)))
    assert sum(len(done.added) for done in rounds) == 6
    assert len(extras.made("caption")) == 3
    assert len(extras.made("thumbnail")) == 3


async def test_a_process_that_was_stopped_during_its_try_does_not_change_what_another_one_has_added(extras: Extras) -> None:
    """It overwrote the other process's outcome, so people were told that YouTube had refused the track."""
    await extras.posted({"captions": True})
    extras.stops = asyncio.Event()
    stopped = asyncio.create_task(extras.round())
    await extras.began.wait()
    extras.later()
    wakes, extras.stops = extras.stops, None
    assert len((await extras.round()).added) == 1
    wakes.set()
    late = await stopped
    assert (late.added, late.refused, late.waiting) == ([], [], [])
    assert extras.states == {"captions": "added"}
    assert len(extras.made("caption")) == 1


async def test_what_another_process_has_tried_since_the_round_began_is_not_taken_for_untried(extras: Extras) -> None:
    """The first round believed that nothing had been sent yet, and did not look for the track before it sent another one."""
    await extras.posted({"captions": True})
    [seen] = extras.table.due(["youtube"], most=9)
    extras.dies = "after the answer"
    with pytest.raises(BaseExceptionGroup):
        await extras.round()
    extras.later()
    assert extras.table.begin(seen) is None
    [again] = extras.table.due(["youtube"], most=9)
    assert (again.tries, extras.table.begin(again) is not None) == (1, True)


async def test_nothing_is_added_to_a_post_that_was_taken_down_since_the_round_began(extras: Extras) -> None:
    await extras.posted()
    first, second = extras.table.due(["youtube"], most=9)
    assert extras.table.begin(first) is not None
    extras.studio.world.write(
        "INSERT INTO phantoms.post_changes (post_id, state, evidence) SELECT id, 'taken_down', '' FROM phantoms.posts"
    )
    assert extras.table.begin(second) is None
    assert list(extras.states) == [first.name]


async def test_a_post_that_is_taken_down_during_a_try_needs_nobody_because_of_its_captions(extras: Extras) -> None:
    await extras.posted({"captions": True})
    extras.stops = asyncio.Event()
    trying = asyncio.create_task(extras.round())
    await extras.began.wait()
    world = extras.studio.world
    world.write("INSERT INTO phantoms.post_changes (post_id, state, evidence) SELECT id, 'taken_down', '' FROM phantoms.posts")
    extras.stops.set()
    assert len((await trying).refused) == 1
    assert [item for item in AttentionBoard(world.engine).read() if item.id.startswith("extra")] == []
    world.write("DELETE FROM phantoms.post_changes")
    assert [item for item in AttentionBoard(world.engine).read() if item.id.startswith("extra")] != []


async def test_a_lost_answer_is_tried_again_and_the_track_is_adopted(extras: Extras) -> None:
    await extras.posted({"captions": True})
    extras.studio.sandbox.faults.append(Fault("youtube.caption", kind="drop_after", times=1))
    [(extra, why)] = (await extras.round()).waiting
    assert (extra.name, "gave no answer" in why) == ("captions", True)
    assert (await extras.round()).added == []
    extras.later()
    assert len((await extras.round()).added) == 1
    assert len(extras.made("caption")) == 1


async def test_what_youtube_refuses_is_said_and_the_post_and_the_other_extra_are_as_they_were(extras: Extras) -> None:
    extras.studio.sandbox.config["youtube.custom_thumbnails"] = False
    [key] = await extras.posted()
    done = await extras.round()
    assert [extra.name for extra, _ in done.added] == ["captions"]
    [(extra, why)] = done.refused
    assert (extra.name, "verify its phone number" in why) == ("thumbnail", True)
    [row] = extras.studio.world.rows("SELECT state, extras FROM phantoms.posts")
    assert (row["state"], row["extras"]) == ("confirmed", [])
    assert extras.studio.world.states("youtube/post") == ["done"]
    shown = await asyncio.to_thread(CliRunner().invoke, app, ["posts", "show", key, "youtube"], env={"COLUMNS": "250"})
    assert f"captions    added: track {key}-youtube in en" in shown.output
    assert "thumbnail   refused: the account may not set thumbnails" in shown.output


async def test_a_used_up_quota_is_waited_for_and_costs_no_try(extras: Extras) -> None:
    extras.studio.sandbox.config["youtube.units_per_day"] = 200
    await extras.posted()
    done = await extras.round()
    assert [extra.name for extra, _ in done.waiting] == ["captions"]
    [row] = extras.studio.world.rows("SELECT tries, due_at > clock_timestamp() AS later FROM phantoms.post_extras")
    assert (row["tries"], row["later"]) == (0, True)
    extras.studio.sandbox.config["youtube.units_per_day"] = 10_000
    extras.later()
    assert len((await extras.round()).added) == 2


async def test_the_words_of_another_revision_are_not_added_to_the_post(extras: Extras) -> None:
    [key] = await extras.posted({"captions": True})
    extras.studio.world.write(
        """UPDATE phantoms.stages SET output = jsonb_set(output, '{video,sha256}', to_jsonb(repeat('a', 64)))
        WHERE stage = 'youtube/variant'"""
    )
    [(extra, why)] = (await extras.round()).refused
    assert (extra.video_key, "made again after it was posted" in why) == (key, True)
    assert extras.made("caption") == []


async def test_a_picture_that_was_cleaned_away_is_said(extras: Extras) -> None:
    await extras.posted({"thumbnail": True})
    for file in extras.studio.folder.rglob("*.jpg"):
        file.unlink()
    [(_, why)] = (await extras.round()).refused
    assert "the media store has no" in why


async def test_the_due_extras_are_found_through_their_index(extras: Extras) -> None:
    world = extras.studio.world
    await extras.posted()
    with world.engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = connection.execute(text("EXPLAIN SELECT id FROM phantoms.posts p WHERE p.extras <> '{}'")).scalars().all()
    assert any("posts_with_extras" in line for line in plan)


# --- the job


@pytest.fixture
def services(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Services]:
    with sandbox_thread(tmp_path) as running:
        running.sandbox.config |= {"youtube.processing_seconds": 0, "youtube.caption_seconds": 0}
        made = Services(
            Settings(
                paths={"home": tmp_path},
                database={"url": database_url},
                redis={"url": redis_url},
                sandbox={"mode": "on", "url": running.url},
            )
        )
        yield made
        made.close()


async def post_with_extras(url: str, folder: Path, sandbox: str) -> None:
    """A video that was published by another process, on the sandbox that the services use."""
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    async with open_world(url) as world, open_studio(world, folder) as studio:
        studio.base_url = sandbox
        await Extras(studio).posted()


def test_the_sensor_starts_the_job_when_something_is_due_and_the_job_adds_it(
    database_url: str, services: Services, tmp_path: Path
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:

        def ticked() -> dg.SensorExecutionData:
            name = post_extras_sensor.name
            context = dg.build_sensor_context(instance=instance, resources={"services": services}, sensor_name=name)
            return post_extras_sensor.evaluate_tick(context)

        assert ticked().skip_message == "nothing must be added to a post"
        # The studio's media are in this folder, too, so the job finds the picture.
        asyncio.run(post_with_extras(database_url, tmp_path, services.endpoints.base_url("youtube")))
        assert len(ticked().run_requests or []) == 1
        result = post_extras_job.execute_in_process(instance=instance, resources={"services": services})
        [event] = [event for event in result.all_events if event.is_successful_output]
        told = {name: value.value for name, value in event.step_output_data.metadata.items()}
        assert told == {"added": 2, "refused": 0, "waiting": 0}
        assert ticked().skip_message == "nothing must be added to a post"
