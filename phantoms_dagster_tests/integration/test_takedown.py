"""`phantoms posts takedown`: a post is deleted at its platform, and the ledger says so once."""

from __future__ import annotations

import json

from phantoms_dagster.domain.post_changes import PostChange
from phantoms_dagster.sandbox.core import Fault
from phantoms_dagster.store.audit import AuditLog
from phantoms_dagster.store.post_changes import PostChanges
from phantoms_dagster.store.results.readings import Results
from phantoms_dagster_tests.integration.publishing_world import Studio
from phantoms_dagster_tests.integration.test_reconciliation import attempt, posts, studio, unknown, world

__all__ = ["studio", "world"]  # fixtures


async def test_a_post_is_deleted_at_youtube_and_recorded_once(studio: Studio) -> None:
    [key] = await studio.ready_to_post()
    await attempt(studio, key)
    assert [row.video_key for row in Results(studio.world.engine).due()] == [key]
    first = await posts("takedown", key, "youtube", "--yes", "--by", "ann", "--json")
    assert first.exit_code == 0, first.output
    assert json.loads(first.output)["evidence"] == "videos.delete answered 204"
    again = await posts("takedown", key, "youtube", "--yes")
    assert (again.exit_code, "was taken down from YouTube before" in again.output) == (0, True), again.output
    assert [entry["kind"] for entry in studio.sandbox.ledger if entry["kind"] == "youtube.deleted"] == ["youtube.deleted"]
    [change] = studio.world.rows("SELECT state, who FROM phantoms.post_changes")
    assert (change["state"], change["who"]) == ("taken_down", "ann")
    assert [row.action for row in AuditLog(studio.world.engine).page(subject=key)].count("take down") == 1
    assert Results(studio.world.engine).due() == []  # its numbers are kept and no longer read
    assert key in (await posts("list", "--state", "taken_down")).output
    assert key not in (await posts("list", "--state", "confirmed")).output
    assert " by ann: videos.delete answered 204" in (await posts("show", key, "youtube")).output
    [row] = studio.world.rows("SELECT state FROM phantoms.posts")
    assert row["state"] == "confirmed"


async def test_a_deletion_that_did_not_reach_the_platform_is_not_recorded(studio: Studio) -> None:
    [key] = await studio.ready_to_post()
    await attempt(studio, key)
    studio.sandbox.faults.append(Fault("youtube.delete", kind="drop_before"))
    assert (await posts("takedown", key, "youtube", "--yes")).exit_code == 1
    assert studio.world.rows("SELECT state FROM phantoms.post_changes") == []


async def test_a_person_who_deleted_a_post_by_hand_is_believed_only_when_it_is_gone(studio: Studio) -> None:
    [key] = await studio.ready_to_post()
    await attempt(studio, key)
    refused = await posts("takedown", key, "youtube", "--done")
    assert (refused.exit_code, "still has the post" in refused.output) == (2, True), refused.output
    [out] = studio.posts()
    headers = {"Authorization": "Bearer sandbox-youtube-account"}
    gone = await studio.client.delete(f"{studio.base_url}/youtube/v3/videos?id={out['remote_id']}", headers=headers)
    assert gone.status_code == 204
    assert (await posts("takedown", key, "youtube", "--done")).exit_code == 0
    [change] = studio.world.rows("SELECT evidence FROM phantoms.post_changes")
    assert change["evidence"] == "videos.list does not contain it"


async def test_a_platform_without_a_deletion_says_where_a_person_does_it(studio: Studio) -> None:
    [key] = await studio.ready_to_post()
    await attempt(studio, key)
    studio.world.write(
        "UPDATE phantoms.posts SET platform = 'tiktok', url = 'https://www.tiktok.com/@you/video/7300000000000000000'"
    )
    refused = await posts("takedown", key, "tiktok", "--yes")
    assert refused.exit_code == 2
    assert "delete https://www.tiktok.com/@you/video/7300000000000000000 in its app" in refused.output
    assert f"phantoms posts takedown {key} tiktok --done" in refused.output


async def test_a_post_that_may_be_out_is_settled_before_it_is_taken_down(studio: Studio) -> None:
    key = await unknown(studio, "drop_after")
    refused = await posts("takedown", key, "youtube", "--yes")
    assert (refused.exit_code, f"phantoms posts show {key} youtube" in refused.output) == (2, True), refused.output
    studio.world.write("UPDATE phantoms.posts SET state = 'handed_over'")
    draft = (await posts("takedown", key, "youtube", "--yes")).output
    assert "is a draft that waits for its creator" in draft
    assert f"phantoms posts settle {key} youtube --not-there" in draft


async def test_a_read_that_began_before_the_takedown_does_not_make_the_post_public_again(studio: Studio) -> None:
    [key] = await studio.ready_to_post()
    await attempt(studio, key)
    [row] = studio.world.rows("SELECT id FROM phantoms.posts")
    changes = PostChanges(studio.world.engine)
    assert (await posts("takedown", key, "youtube", "--yes")).exit_code == 0
    for late in ("public", "gone"):
        assert not changes.record(row["id"], PostChange(late, "its metrics were read"))
    assert changes.latest([row["id"]]) == {row["id"]: "taken_down"}
