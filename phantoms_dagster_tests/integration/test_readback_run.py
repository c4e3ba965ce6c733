"""The analytics job as Dagster runs it, on a sandbox of which one platform fails."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from phantoms_dagster.defs.assets.performance import thinning_job
from phantoms_dagster.defs.build import build_definitions
from phantoms_dagster.sandbox.core import Fault
from phantoms_dagster.sandbox.uploadpost.state import SandboxRequest
from phantoms_dagster.sandbox.youtube.videos import YouTubeVideo
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.attention import AttentionBoard
from phantoms_dagster.store.posts import Posts
from phantoms_dagster.store.story import Stories
from phantoms_dagster.wiring import Services
from phantoms_dagster_tests.integration.stage_world import World
from phantoms_dagster_tests.integration.test_readback_store import Archive
from phantoms_dagster_tests.sandbox_thread import Running, sandbox_thread

HEAD = b"\0\0\0\x18ftypmp42"


@pytest.fixture
def archive(database_url: str) -> Iterator[Archive]:
    world = World(database_url)
    yield Archive(world)
    world.engine.dispose()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with sandbox_thread(tmp_path) as made:
        yield made


@pytest.fixture
def services(archive: Archive, running: Running, redis_url: str, tmp_path: Path) -> Iterator[Services]:
    settings = Settings(
        paths={"home": tmp_path},
        database={"url": archive.world.url},
        redis={"url": redis_url},
        sandbox={"mode": "on", "url": running.url},
    )
    made = Services(settings)
    yield made
    made.close()


def on_youtube(running: Running, remote_id: str) -> None:
    """A public video of two days ago."""
    at = time.time() - 2 * 86_400
    running.sandbox.state["youtube"].videos[remote_id] = YouTubeVideo(
        remote_id, "main", {"title": "t"}, {"privacyStatus": "public"}, "a.mp4", 100, "x", HEAD, at, at, published_at=at
    )


def through_upload_post(running: Running, number: int) -> SandboxRequest:
    """A public TikTok post of two days ago that Upload-Post published."""
    at, request_id = time.time() - 2 * 86_400, str(uuid.UUID(int=number))
    fields = {"privacy_level": "PUBLIC_TO_EVERYONE", "title": "t"}
    post_id = f"75000000000000000{number:02}"
    made = SandboxRequest(request_id, request_id, "main", "tiktok", fields, 100, "x", at, "posted", post_id, run_at=at)
    running.sandbox.state["uploadpost"].requests.append(made)
    return made


def analytics(services: Services, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = build_definitions(resource_overrides={"services": services}).resolve_job_def("analytics_job")
    return job.execute_in_process(instance=instance)


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    [event] = [e for e in result.get_asset_materialization_events() if e.asset_key == dg.AssetKey(asset)]
    return {name: value.value for name, value in event.materialization.metadata.items()}


def test_a_platform_that_fails_leaves_the_tables_of_the_others_fresh_and_is_reported(
    archive: Archive, running: Running, services: Services
) -> None:
    """One account's failing calls stopped the performance tables of all platforms, and no message said so."""
    good, bad = archive.world.add(2)
    archive.post(good)
    archive.post(bad, platform="instagram")
    archive.world.write("UPDATE phantoms.posts SET sandbox = true")
    on_youtube(running, f"r-{good}")
    running.sandbox.faults.append(Fault(route="instagram.*", status=500))
    with dg.DagsterInstance.ephemeral() as instance:
        result = analytics(services, instance)
    assert result.success
    found = metadata(result, "post_metrics")
    assert (found["due"], found["posts"], found["missing"]) == (2, 1, 0)
    assert "instagram:main" in found["unread"]
    by_name = {check.check_name: check for check in result.get_asset_check_evaluations()}
    check = by_name.pop("every_account_is_read")
    assert (check.check_name, check.passed, check.severity) == ("every_account_is_read", False, dg.AssetCheckSeverity.WARN)
    [row] = archive.tables.table("video_performance").to_dict("records")
    assert row["video_key"] == good
    assert row["views"] > 0
    assert found["views"] == row["views"]
    [silent] = archive.results.unread()
    assert (silent.platform, silent.account) == ("instagram", "main")
    assert {metadata(result, f"{name}_performance")["dagster/row_count"] for name in ("video", "platform")} == {1}
    assert {name: one.passed for name, one in by_name.items()} == {"every_post_is_counted_once": True}


def test_a_second_readback_right_after_the_first_makes_no_call(archive: Archive, running: Running, services: Services) -> None:
    [key] = archive.world.add(1)
    archive.post(key)
    archive.world.write("UPDATE phantoms.posts SET sandbox = true")
    on_youtube(running, f"r-{key}")
    with dg.DagsterInstance.ephemeral() as instance:
        analytics(services, instance)
        calls = dict(running.sandbox.calls)
        second = analytics(services, instance)
    assert running.sandbox.calls == calls
    assert metadata(second, "post_metrics")["due"] == 0
    assert all(check.passed for check in second.get_asset_check_evaluations())


def test_the_nightly_job_thins(archive: Archive, services: Services) -> None:
    [key] = archive.world.add(1)
    post = archive.post(key, hours=24 * 200)
    for minutes in range(3):
        archive.snapshot(post, hours=24 * 199 + minutes / 60, views=minutes)
    result = thinning_job.execute_in_process(resources={"services": services})
    [event] = [e for e in result.all_events if e.is_successful_output]
    deleted = event.step_output_data.metadata["deleted"].value
    assert isinstance(deleted, int)
    assert deleted >= 1


def test_a_post_that_was_made_private_blocked_or_deleted_is_recorded_told_and_shown(
    archive: Archive, running: Running, services: Services
) -> None:
    private, blocked, deleted = archive.world.add(3)
    for key in (private, blocked, deleted):
        archive.post(key)
        on_youtube(running, f"r-{key}")
    archive.world.write("UPDATE phantoms.posts SET sandbox = true")
    videos = running.sandbox.state["youtube"].videos

    def rounds() -> int:
        archive.world.write("UPDATE phantoms.post_reads SET due_at = clock_timestamp(), gone_at = gone_at - interval '1 hour'")
        with dg.DagsterInstance.ephemeral() as instance:
            return int(metadata(analytics(services, instance), "post_metrics")["changed"])

    def states() -> dict[str, str]:
        return {post.key: post.now for post in Posts(archive.world.engine).page()}

    def told() -> list[str]:
        return [item.what for item in AttentionBoard(archive.world.engine).read() if item.id.startswith("changed:")]

    assert (rounds(), told()) == (0, [])
    videos[f"r-{private}"].status["privacyStatus"] = "private"
    running.sandbox.config["youtube.rejected_videos"] = {f"r-{blocked}": "copyright"}
    del videos[f"r-{deleted}"]
    assert rounds() == 2  # one read that does not show a video is no proof
    assert states() == {private: "private", blocked: "blocked", deleted: "published"}
    assert rounds() == 1
    assert states()[deleted] == "gone"
    assert rounds() == 0
    [what] = told()
    assert what.startswith("3 posts of the youtube account main changed at the platform")
    story = Stories(archive.world.engine).of(blocked)
    assert story is not None
    assert "uploadStatus is rejected (copyright)" in [one.detail for one in story.happenings]
    running.sandbox.config.clear()
    videos[f"r-{private}"].status["privacyStatus"] = "public"
    assert rounds() == 2
    assert states() == {private: "published", blocked: "published", deleted: "gone"}


def test_posts_that_a_gateway_published_are_read_there_and_noticed_when_they_are_gone(
    archive: Archive, running: Running, services: Services
) -> None:
    shown, deleted = through_upload_post(running, 1), through_upload_post(running, 2)
    for key, request in zip(archive.world.add(2), (shown, deleted), strict=True):
        archive.post(key, platform="tiktok")
        archive.world.write("UPDATE phantoms.posts SET remote_id = :id WHERE remote_id = :old", id=request.post_id, old=f"r-{key}")
    archive.world.write("UPDATE phantoms.posts SET sandbox = true, route = 'gateway'")
    running.sandbox.config["uploadpost.removed"] = [deleted.post_id]
    with dg.DagsterInstance.ephemeral() as instance:
        found = metadata(analytics(services, instance), "post_metrics")
        assert (found["due"], found["posts"], found["missing"], found["changed"]) == (2, 1, 1, 0)
        assert found["views"] > 0
        archive.world.write("UPDATE phantoms.post_reads SET due_at = now(), gone_at = gone_at - interval '2 hours'")
        found = metadata(analytics(services, instance), "post_metrics")
    assert (found["missing"], found["changed"]) == (1, 1)
    [change] = archive.world.rows("SELECT state, evidence FROM phantoms.post_changes")
    assert change["state"] == "gone"
    assert "at Upload-Post does not contain it" in change["evidence"]
    assert running.sandbox.calls.get("tiktok.query", 0) == 0
