"""What a person sees on Dagster's pages after the usual clicks, through the same calls as the pages make."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._daemon.freshness import FreshnessDaemon

from phantoms_dagster.defs import step_events, tags
from phantoms_dagster.defs.checks import dead_letters_sensor
from phantoms_dagster.defs.sensors import remove_unknown
from phantoms_dagster.defs.settled import settled_sensor
from phantoms_dagster.domain.claims import AttemptOutcome, StageResult, StageTask
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.stages import StageState
from phantoms_dagster.execution.launcher import RqRunLauncher
from phantoms_dagster.execution.queues import RunQueues, connect
from phantoms_dagster.execution.slots import JOB_TAG
from phantoms_dagster.private.dagster import LaunchRunContext
from phantoms_dagster.production.stages.approval import Approve
from phantoms_dagster.store.dead_letters.letters import DeadLetters, LetterFilter
from phantoms_dagster.store.decisions import Decisions
from phantoms_dagster_tests.integration.stage_world import World, output_of
from phantoms_dagster_tests.integration.ui_world import ADD_PARTITION, UiWorld, ui_world

# Dagster warns of parts of its own when it describes a schedule and when it launches a backfill.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Property `ScheduleDefinition.environment_vars`:DeprecationWarning",
    "ignore:Function `AssetSelection.sources`:DeprecationWarning",
)

STALE = """
query Stale($keys: [AssetKeyInput!]) { assetNodes(assetKeys: $keys) { staleStatus dependencyKeys { path } } }
"""
TABLE = """
query Table($keys: [AssetKeyInput!]) {
  assetNodes(assetKeys: $keys) {
    metadataEntries { label ... on TableSchemaMetadataEntry { schema { columns { name type } } } }
    internalFreshnessPolicy { ... on TimeWindowFreshnessPolicy { failWindowSeconds } }
  }
}
"""
FRESHNESS = """
query Freshness($keys: [AssetKeyInput!]) {
  assetNodes(assetKeys: $keys) {
    assetKey { path } kinds owners { ... on TeamAssetOwner { team } } freshnessStatusInfo { freshnessStatus }
  }
}
"""
TABLES = ("post_metrics", "video_performance", "platform_performance", "hook_performance")
TO_MASTER = ("script", "voiceover", "rendered_video")


@pytest.fixture
def ui(
    tmp_path: Path, database_url: str, dagster_database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[UiWorld]:
    with ui_world(tmp_path, database_url, dagster_database_url, redis_url, monkeypatch) as world:
        yield world


def carried(ui: UiWorld, keys: list[str], *stages: str) -> None:
    """These stages of the videos are done."""

    async def carry() -> None:
        await ui.world.carry(keys, *stages)
        await ui.world.async_engine.dispose()

    asyncio.run(carry())


def fail(world: World, key: str, stage: str) -> None:
    """The stage of the video has failed for good."""

    async def bury() -> None:
        store, claim = await world.claimed(stage, key)
        await store.finish(
            claim, AttemptOutcome(StageState.FAILED, error_class="permanent", code="400", message="no such voice", provider="voice")
        )
        await world.async_engine.dispose()

    asyncio.run(bury())


def waiting_for_approval(ui: UiWorld, count: int, **changes: object) -> list[str]:
    keys = ui.add(count, **changes)
    carried(ui, keys, *TO_MASTER)
    return keys


def tick(ui: UiWorld, sensor: dg.SensorDefinition, cursor: str | None = None) -> tuple[str, str | None]:
    """An evaluation of a sensor, with what it reports put down: its reason and its new cursor."""
    with ui.services() as services:
        context = dg.build_sensor_context(
            instance=ui.instance, cursor=cursor, resources={"services": services}, sensor_name=sensor.name
        )
        done = sensor.evaluate_tick(context)
    for event in done.asset_events:
        ui.instance.report_runless_asset_event(event)
    return done.skip_message or "", done.cursor


# --- approval


def test_missing_on_the_approval_of_one_video_ends_without_a_failure_and_says_that_it_waits_for_a_person(ui: UiWorld) -> None:
    """It ended red, "deferred until 2036"."""
    [key] = waiting_for_approval(ui, 1)
    run = ui.launch("approval", tags={"dagster/partition": key})
    assert ui.status(run) == "SUCCESS"
    found = ui.partitions("approval")
    assert (found["failed"], found["missing"]) == ([], [key])
    notes = ui.notes("approval", key)
    assert notes["kind"] == "ObservationEvent"
    assert notes["waits_for_a_person"].startswith("waits for a person, nobody has decided yet: `phantoms approve")
    assert "posts" in notes or "picture" in notes, "what there is to decide about is not shown"
    assert "20" + "36" not in ui.messages(run)
    row = ui.world.row(key, "approval")
    assert (row["state"], row["retry_at"], row["error_class"]) == ("deferred", None, "person")


def test_what_waits_for_a_person_goes_on_with_the_decision(ui: UiWorld) -> None:
    [key] = waiting_for_approval(ui, 1)
    ui.launch("approval", tags={"dagster/partition": key})
    assert ui.world.due("approval") == []
    Decisions(ui.world.engine).decide(key, approved=True, reviewer="ann", via="cli")
    assert ui.world.due("approval") == [key]
    run = ui.launch("approval", tags={"dagster/partition": key})
    assert ui.status(run) == "SUCCESS"
    assert ui.partitions("approval")["materialized"] == [key]
    assert ui.notes("approval", key)["reviewer"] == "ann"


def test_a_backfill_of_waiting_videos_does_not_fail(ui: UiWorld) -> None:
    keys = waiting_for_approval(ui, 3)
    assert ui.backfill("approval", keys) == "COMPLETED_SUCCESS"
    assert ui.partitions("approval")["failed"] == []
    assert all("waits_for_a_person" in ui.notes("approval", key) for key in keys)
    assert [ui.world.row(key, "approval")["state"] for key in keys] == ["deferred"] * 3


def test_a_later_stage_of_a_waiting_video_does_not_fail_either(ui: UiWorld) -> None:
    [key] = waiting_for_approval(ui, 1)
    run = ui.launch("youtube_variant", tags={"dagster/partition": key})
    assert ui.status(run) == "SUCCESS"
    assert ui.partitions("youtube_variant")["failed"] == []
    assert "waits_for_a_person" in ui.notes("youtube_variant", key)


def test_a_video_that_a_person_rejects_leaves_no_red_partition(ui: UiWorld) -> None:
    [key] = waiting_for_approval(ui, 1)
    config = {"ops": {"approval": {"config": {"decision": "REJECT", "reviewer": "Ada", "note": "too loud"}}}}
    run = ui.launch("approval", tags={"dagster/partition": key}, config=config)
    assert ui.status(run) == "SUCCESS"
    assert ui.partitions("approval")["failed"] == []
    assert ui.notes("approval", key)["rejected"] == "rejected by Ada: too loud"
    assert ui.world.row(key, "approval")["state"] == "rejected"


def test_a_stage_whose_input_is_still_to_be_made_fails_as_before(ui: UiWorld) -> None:
    [key] = ui.add(1)
    run = ui.launch("voiceover", tags={"dagster/partition": key})
    assert ui.status(run) == "FAILURE"
    assert "waits for script" in ui.messages(run)


# --- settled without being made


def test_a_backfill_over_platforms_that_no_brief_wants_succeeds_and_leaves_a_note(ui: UiWorld) -> None:
    keys = ui.add(2)
    assert ui.backfill("tiktok_variant", keys) == "COMPLETED_SUCCESS"
    found = ui.partitions("tiktok_variant")
    assert (sorted(found["materialized"]), found["failed"], found["missing"]) == (sorted(keys), [], [])
    assert ui.notes("tiktok_variant", keys[0])["not_wanted"] == "not wanted on tiktok"


def test_an_unwanted_platform_is_noted_once_without_a_run(ui: UiWorld) -> None:
    [one] = ui.add(1)
    [everywhere] = ui.add(1, platforms=Platform.usual())
    reason, cursor = tick(ui, settled_sensor)
    assert reason == "noted: 1 videos not wanted on a platform"
    for asset in ("tiktok_variant", "tiktok_post", "instagram_variant", "instagram_post"):
        assert ui.partitions(asset)["materialized"] == [one]
    assert ui.partitions("youtube_post")["missing"] == [one, everywhere]
    [later] = ui.add(1)
    reason, cursor = tick(ui, settled_sensor, cursor)
    assert ui.partitions("tiktok_post")["materialized"] == [one, later]
    assert len(ui.shown_events("tiktok_post")) == 2
    assert tick(ui, settled_sensor, cursor)[0] == "nothing was settled"


def test_a_discarded_letter_leaves_no_red_partition_and_failed_does_not_select_it(ui: UiWorld) -> None:
    given_up, still_failed = ui.add(2)
    carried(ui, [given_up, still_failed], "script")
    _, cursor = tick(ui, settled_sensor)
    for key in (given_up, still_failed):
        fail(ui.world, key, "voiceover")
    # What the partition looks like after the sensor's own run has failed.
    run = ui.launch("voiceover", tags={tags.PLANNED: "true", tags.RANGE_START: given_up, tags.RANGE_END: still_failed})
    assert ui.status(run) == "FAILURE"
    assert sorted(ui.partitions("voiceover")["failed"]) == sorted([given_up, still_failed])
    DeadLetters(ui.world.engine).discard(LetterFilter(keys=[given_up]), by="ann", reason="wrong topic")
    reason, cursor = tick(ui, settled_sensor, cursor)
    assert reason == "noted: 1 videos given up"
    assert ui.partitions("voiceover")["failed"] == [still_failed]
    assert ui.notes("voiceover", given_up)["given_up"].startswith("given up by ann at 20")
    assert ui.notes("voiceover", given_up)["given_up"].endswith("UTC: wrong topic")
    for later in ("rendered_video", "approval", "youtube_variant", "youtube_post"):
        assert given_up in ui.partitions(later)["materialized"]
        assert still_failed in ui.partitions(later)["missing"]
    assert tick(ui, settled_sensor, cursor)[0] == "nothing was settled"
    assert ui.backfill("rendered_video", [given_up]) == "COMPLETED_SUCCESS"


def test_a_partition_typed_by_hand_says_what_to_do_and_is_gone_after_its_run(ui: UiWorld) -> None:
    [key] = ui.add(1)
    ui.ask(ADD_PARTITION, key="my-video")
    assert ui.partitions("script")["all"] == [key, "my-video"]
    run = ui.launch("script", tags={"dagster/partition": "my-video"})
    assert ui.status(run) == "FAILURE"
    assert "there is no brief with this key; add one with `phantoms add`" in ui.messages(run)
    found = ui.partitions("script")
    assert (found["all"], found["failed"]) == ([key], [])


def test_a_partition_typed_by_hand_is_removed_when_nothing_runs_on_it(ui: UiWorld) -> None:
    [key] = ui.add(1)
    ui.ask(ADD_PARTITION, key="my-video")
    assert remove_unknown(ui.instance, ui.world.catalogue) == ["my-video"]
    assert ui.partitions("script")["all"] == [key]
    assert remove_unknown(ui.instance, ui.world.catalogue) == []


# --- checks and events


def test_each_materialization_is_followed_by_the_evaluation_of_its_checks(ui: UiWorld) -> None:
    """`no_dead_letters` was "Not evaluated" after each materialization."""
    decided, waiting = waiting_for_approval(ui, 2)
    tick(ui, dead_letters_sensor)
    assert ui.checks("approval") == {"no_dead_letters": "SUCCEEDED", "every_film_is_decided_on": "FAILED"}
    Decisions(ui.world.engine).decide(decided, approved=True, reviewer="ann", via="cli")
    for key in (decided, waiting):
        ui.launch("approval", tags={"dagster/partition": key})
    assert ui.checks("approval") == {"no_dead_letters": "SUCCEEDED", "every_film_is_decided_on": "FAILED"}
    run = ui.launch("rendered_video", tags={"dagster/partition": decided})
    assert ui.status(run) == "SUCCESS"
    assert set(ui.checks("rendered_video").values()) == {"SUCCEEDED"}
    assert set(ui.checks("rendered_video")) == {"no_dead_letters", "length", "size", "loudness", "glyphs"}


def test_a_video_that_is_too_loud_or_shows_empty_boxes_fails_the_check_of_content(ui: UiWorld) -> None:
    [key] = ui.add(1)
    carried(ui, [key], "script", "voiceover")
    master = output_of("rendered_video")
    master = master.model_copy(update={"not_shown": ("\u0b95",), "probe": master.probe.model_copy(update={"loudness_lufs": -5.0})})  # type: ignore[union-attr]

    async def carry() -> None:
        await ui.world.carry([key], "rendered_video", outputs={"rendered_video": master})
        await ui.world.async_engine.dispose()

    asyncio.run(carry())
    ui.launch("rendered_video", tags={"dagster/partition": key})
    wanted = {"no_dead_letters": "SUCCEEDED", "length": "SUCCEEDED", "size": "SUCCEEDED", "loudness": "FAILED", "glyphs": "FAILED"}
    assert ui.checks("rendered_video") == wanted


def test_a_page_of_fifty_shows_all_fifty_events_of_a_batch(ui: UiWorld) -> None:
    """They shared a millisecond, by which the page tells them apart: it showed five of seven."""
    keys = waiting_for_approval(ui, 50)
    Decisions(ui.world.engine).decide_all(keys, approved=True, reviewer="ann", via="cli")
    run = ui.launch("approval", tags={tags.PLANNED: "true", tags.RANGE_START: keys[0], tags.RANGE_END: keys[-1]})
    assert ui.status(run) == "SUCCESS"
    shown = ui.shown_events("approval", limit=50)
    assert sorted(event["partition"] for event in shown) == sorted(keys)


def test_a_video_is_shown_as_soon_as_it_is_done_while_others_of_its_run_are_under_way(
    ui: UiWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick, slow = waiting_for_approval(ui, 2)
    Decisions(ui.world.engine).decide_all([quick, slow], approved=True, reviewer="ann", via="cli")
    monkeypatch.setattr(step_events, "FLUSH_SECONDS", 0.05)
    approve, seen = Approve.__call__, list[set[str]]()

    async def at_its_own_pace(self: Approve, task: StageTask) -> StageResult:
        for _ in range(600 if task.video.key == slow else 0):
            if shown := ui.instance.get_materialized_partitions(dg.AssetKey("approval")):
                seen.append(shown)
                break
            await asyncio.sleep(0.05)
        return await approve(self, task)

    monkeypatch.setattr(Approve, "__call__", at_its_own_pace)
    run = ui.launch("approval", tags={tags.PLANNED: "true", tags.RANGE_START: quick, tags.RANGE_END: slow})
    assert ui.status(run) == "SUCCESS"
    assert seen == [{quick}]
    assert sorted(ui.partitions("approval")["materialized"]) == sorted([quick, slow])


def test_the_sensor_of_dead_letters_says_what_it_reported(ui: UiWorld) -> None:
    [key] = ui.add(1)
    reason, cursor = tick(ui, dead_letters_sensor)
    assert reason.startswith("checks reported; dead letters: script: 0 open")
    assert tick(ui, dead_letters_sensor, cursor)[0].startswith("no dead letter was added or closed")
    fail(ui.world, key, "script")
    reason, cursor = tick(ui, dead_letters_sensor, cursor)
    assert reason == "checks reported; dead letters: script: 1 open"
    assert ui.checks("script")["no_dead_letters"] == "FAILED"
    assert json.loads(cursor or "{}")["script"][0] == 1


# --- tables


def test_a_new_post_does_not_make_the_results_look_out_of_step(ui: UiWorld) -> None:
    """`post_metrics` was "Unsynced" with each new post, although it reads what is due by age."""
    first, second = ui.add(2)
    for asset, partition in (("youtube_post", first), ("post_metrics", None), ("youtube_post", second)):
        ui.instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition))
    [node] = ui.ask(STALE, keys=[{"path": ["post_metrics"]}])["assetNodes"]
    assert node["staleStatus"] == "FRESH"
    assert {"path": ["youtube_post"]} in node["dependencyKeys"]


def test_the_catalog_knows_the_columns_of_the_tables_and_when_they_are_old(ui: UiWorld) -> None:
    for name in ("video_performance", "platform_performance", "hook_performance"):
        [node] = ui.ask(TABLE, keys=[{"path": [name]}])["assetNodes"]
        [schema] = [entry["schema"] for entry in node["metadataEntries"] if entry["label"] == "dagster/column_schema"]
        types = {column["name"]: column["type"] for column in schema["columns"]}
        assert types["views"] == "integer"
        assert types["computed_at"] == "timestamp"
        assert node["internalFreshnessPolicy"]["failWindowSeconds"] == 6 * 3_600


def test_the_page_of_a_table_says_whether_it_is_fresh_and_whose_it_is(ui: UiWorld) -> None:
    def shown() -> dict[str, str]:
        assert all(error is None for error in FreshnessDaemon().run_iteration(ui.process))
        nodes = ui.ask(FRESHNESS, keys=[{"path": [name]} for name in TABLES])["assetNodes"]
        assert all(node["kinds"] and node["owners"] == [{"team": "content"}] for node in nodes)
        return {node["assetKey"]["path"][0]: node["freshnessStatusInfo"]["freshnessStatus"] for node in nodes}

    assert shown() == dict.fromkeys(TABLES, "UNKNOWN")
    ui.instance.report_runless_asset_event(dg.AssetMaterialization("video_performance"))
    assert shown() == {**dict.fromkeys(TABLES, "UNKNOWN"), "video_performance": "HEALTHY"}


def test_the_runs_of_a_backfill_go_to_the_workers_of_their_stage(ui: UiWorld, redis_url: str) -> None:
    keys = waiting_for_approval(ui, 2)
    backfill = ui.start_backfill("approval", keys)
    ui.look_at_backfills()
    waiting = ui.instance.run_launcher.waiting  # type: ignore[attr-defined]
    launcher = RqRunLauncher(redis_url)
    launcher.register_instance(ui.instance)
    for run, _ in waiting:
        launcher.launch_run(LaunchRunContext(run, None))
    [run] = ui.instance.get_runs(dg.RunsFilter(tags={tags.BACKFILL: backfill}))
    assert run.tags[tags.STAGE] == "approval"
    with contextlib.closing(connect(redis_url)) as redis:
        assert RunQueues(redis).queue("approval").get_job_ids() == [run.tags[JOB_TAG]]
    launcher.dispose()
