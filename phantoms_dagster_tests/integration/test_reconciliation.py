"""Posts whose outcome is unknown: read again, then settled by a person; a decision and a read never make two posts of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from phantoms_dagster.cli.main import app
from phantoms_dagster.domain.claims import AttemptOutcome, Claim, StageTask
from phantoms_dagster.domain.errors import InvalidInput, NotYet, ProviderError, StaleClaim
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.publication import NotPublished
from phantoms_dagster.domain.reconciliation import NEEDS_PERSON_READS, post_reference
from phantoms_dagster.domain.stages import PostState, StageState
from phantoms_dagster.sandbox.core import Fault
from phantoms_dagster.store.attention import AttentionBoard
from phantoms_dagster.store.audit import Actor, AuditLog
from phantoms_dagster.store.ledgers import PostgresLedgers, PostgresPostJournal
from phantoms_dagster.store.reconciliation import Reconciliation, SeenPost
from phantoms_dagster_tests.integration.publishing_world import Studio, open_studio
from phantoms_dagster_tests.integration.stage_world import World, media_file, open_world

YOUTUBE = Platform("youtube")
ANN = Actor("ann", "cli")


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
async def studio(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> AsyncIterator[Studio]:
    async with open_studio(world, tmp_path) as opened:
        monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
        monkeypatch.setenv("PHANTOMS_DATABASE_URL", world.url)
        monkeypatch.setenv("PHANTOMS_REDIS_URL", redis_url)
        monkeypatch.setenv("PHANTOMS_SANDBOX_URL", opened.base_url)
        yield opened


async def posts(*arguments: str) -> Result:
    """`phantoms posts`, in a thread: the command has an event loop of its own."""
    result = await asyncio.to_thread(CliRunner().invoke, app, ["posts", *arguments], env={"COLUMNS": "250"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


async def attempt(studio: Studio, key: str) -> None:
    """One run of the post's stage."""
    store, claim = await studio.claim(key)
    try:
        made = await studio.publish()(StageTask(claim, await store.attempt(claim)))
    except (ProviderError, NotYet) as error:
        outcome = AttemptOutcome(StageState.DEFERRED, None, studio.clock.now(), False, "youtube", "unknown", "lost", str(error))
    else:
        outcome = AttemptOutcome(StageState.DONE, result=made, counts=False)
    await store.finish(claim, outcome)


async def unknown(studio: Studio, kind: str) -> str:
    """A post whose change to public lost its answer, `drop_after` or `drop_before` it took effect. Reading fails, too."""
    [key] = await studio.ready_to_post()
    studio.sandbox.faults.append(Fault("youtube.update", kind=kind, times=1))
    await attempt(studio, key)
    assert state(studio) == "unknown"
    return key


async def journal_of(studio: Studio, claim: Claim) -> PostgresPostJournal:
    """The ledger's row of the post, as a run holds it."""
    return await PostgresLedgers(studio.world.async_engine).post(
        claim, account="youtube-account", marker="m", video=media_file("m"), caption="c", sandbox=True
    )


def state(studio: Studio) -> str:
    [row] = studio.world.rows("SELECT state FROM phantoms.posts")
    return str(row["state"])


async def test_a_post_that_a_person_found_is_read_published_in_that_persons_name_and_not_sent_again(studio: Studio) -> None:
    key = await unknown(studio, "drop_after")
    [out] = studio.posts()
    result = await posts("settle", key, "youtube", "--there", out["remote_id"], "--yes", "--by", "ann")
    assert result.exit_code == 0, result.output
    [row] = studio.world.rows("SELECT state, remote_id, url, proof FROM phantoms.posts")
    assert (row["state"], row["remote_id"]) == ("published", out["remote_id"])
    assert row["proof"].startswith("person: ann says it is there; privacyStatus is public")
    assert row["url"] == f"{studio.base_url}/watch/{out['remote_id']}"
    await attempt(studio, key)
    assert state(studio) == "confirmed"
    [row] = studio.world.rows("SELECT proof FROM phantoms.posts")
    assert row["proof"].startswith("person: ann")
    assert (len(studio.posts()), studio.world.row(key, "youtube/post")["state"]) == (1, "done")
    [entry, *_] = AuditLog(studio.world.engine).page(subject=key)
    assert (entry.who, entry.via, entry.action) == ("ann", "cli", "post is there")
    assert entry.before is not None
    assert entry.before["state"] == "unknown"


async def test_a_post_that_a_person_did_not_find_is_published_again_once(studio: Studio) -> None:
    key = await unknown(studio, "drop_before")
    assert studio.posts() == []
    result = await posts("settle", key, "youtube", "--not-there", "--reason", "only a private video", "--yes", "--json")
    assert result.exit_code == 0, result.output
    [row] = studio.world.rows("SELECT state, remote_id, handle, proof FROM phantoms.posts")
    assert (row["state"], row["remote_id"], row["handle"]) == ("intent", None, {})
    assert row["proof"].endswith("says it is not there: only a private video")
    await attempt(studio, key)
    assert (state(studio), len(studio.posts())) == ("confirmed", 1)
    assert AuditLog(studio.world.engine).page(subject=key)[0].action == "post is not there"


async def test_nothing_is_believed_that_the_platform_does_not_show(studio: Studio) -> None:
    key = await unknown(studio, "drop_before")
    [private] = [entry for entry in studio.sandbox.ledger if entry["kind"] == "youtube.video"]
    refusals = {
        private["remote_id"]: "it is private",
        "AAAAAAAAAAA": "it is gone",
        "https://www.tiktok.com/@you/video/7300000000000000000": "is no post on YouTube",
    }
    for given, why in refusals.items():
        refused = await posts("settle", key, "youtube", "--there", given, "--yes")
        assert (refused.exit_code, why in refused.output) == (2, True), refused.output
        assert state(studio) == "unknown"
    seen = await posts("settle", key, "youtube", "--there", private["remote_id"], "--unread", "--yes")
    assert (seen.exit_code, state(studio)) == (0, "published")


async def test_a_post_of_another_account_or_another_time_is_refused(studio: Studio) -> None:
    key = await unknown(studio, "drop_after")
    [out] = studio.posts()
    studio.world.write("UPDATE phantoms.posts SET account = 'other'")
    refused = await posts("settle", key, "youtube", "--there", out["remote_id"], "--yes")
    assert (refused.exit_code, "belongs to" in refused.output) == (2, True), refused.output
    studio.world.write("UPDATE phantoms.posts SET account = 'youtube-account', attempted_at = clock_timestamp() + interval '1 day'")
    refused = await posts("settle", key, "youtube", "--there", out["remote_id"], "--yes")
    assert (refused.exit_code, "was first sent at" in refused.output) == (2, True), refused.output


async def test_the_post_of_another_video_is_not_taken_for_this_one(studio: Studio) -> None:
    first, second = await studio.ready_to_post(count=2)
    await attempt(studio, first)
    [out] = studio.posts()
    studio.sandbox.faults.append(Fault("youtube.update", kind="drop_before", times=1))
    await attempt(studio, second)
    refused = await posts("settle", second, "youtube", "--there", out["remote_id"], "--unread", "--yes")
    assert (refused.exit_code, f"is the post of {first} already" in refused.output) == (2, True), refused.output
    states = studio.world.rows("SELECT v.key, p.state FROM phantoms.posts p JOIN phantoms.videos v ON v.id = p.video_id")
    assert {row["key"]: row["state"] for row in states} == {first: "confirmed", second: "unknown"}


async def test_an_address_that_is_no_post_is_refused_before_anybody_is_asked(studio: Studio) -> None:
    key = await unknown(studio, "drop_before")
    refused = await posts("settle", key, "youtube", "--there", "notaurl")
    assert (refused.exit_code, "'notaurl' is no post on YouTube" in refused.output) == (2, True), refused.output
    assert "Save that" not in refused.output


async def test_a_post_that_is_not_unknown_is_not_decided_about(studio: Studio) -> None:
    [key] = await studio.ready_to_post()
    await attempt(studio, key)
    for arguments in (["--not-there"], ["--there", "AAAAAAAAAAA"]):
        refused = await posts("settle", key, "youtube", *arguments, "--yes")
        assert (refused.exit_code, "is confirmed, not unknown" in refused.output) == (2, True), refused.output
    assert len(studio.posts()) == 1


async def test_a_run_that_was_reading_when_a_person_decided_saves_nothing_and_sends_nothing(studio: Studio) -> None:
    key = await unknown(studio, "drop_before")
    _, claim = await studio.claim(key)
    journal = await journal_of(studio, claim)
    Reconciliation(studio.world.engine).is_not_there(key, YOUTUBE, ANN)
    with pytest.raises(StaleClaim):
        await journal.save(PostState.COMMITTING, proof=NotPublished("it is private", then="commit"))
    assert state(studio) == "intent"


async def test_a_person_who_decides_after_a_run_went_on_is_refused(studio: Studio) -> None:
    key = await unknown(studio, "drop_before")
    _, claim = await studio.claim(key)
    journal = await journal_of(studio, claim)
    await journal.save(PostState.COMMITTING, proof=NotPublished("it is private", then="commit"))
    table = Reconciliation(studio.world.engine)
    with pytest.raises(InvalidInput, match="is committing, not unknown"):
        table.is_not_there(key, YOUTUBE, ANN)
    with pytest.raises(InvalidInput, match="is committing, not unknown"):
        table.is_there(key, YOUTUBE, SeenPost("x", None, None, "seen"), ANN)


async def test_of_two_people_and_a_run_at_the_same_time_exactly_one_settles_the_post(studio: Studio) -> None:
    key = await unknown(studio, "drop_before")
    for _ in range(10):
        _, claim = await studio.claim(key)
        journal = await journal_of(studio, claim)
        table = Reconciliation(studio.world.engine)
        results = await asyncio.gather(
            asyncio.to_thread(table.is_there, key, YOUTUBE, SeenPost("x1", None, None, "seen"), ANN),
            asyncio.to_thread(table.is_not_there, key, YOUTUBE, Actor("bob", "desk")),
            journal.save(PostState.COMMITTING, proof=NotPublished("it is private", then="commit")),
            return_exceptions=True,
        )
        assert sum(not isinstance(result, Exception) for result in results) == 1, results
        assert all(isinstance(result, InvalidInput | StaleClaim) for result in results if isinstance(result, Exception))
        studio.world.write_post("UPDATE phantoms.posts SET state = 'unknown'")


async def test_a_stage_that_failed_while_its_post_was_unknown_runs_again_after_the_decision(studio: Studio) -> None:
    key = await unknown(studio, "drop_after")
    store, claim = await studio.claim(key)
    await store.finish(claim, AttemptOutcome(StageState.FAILED, error_class="rejected", message="two videos match"))
    [item] = [item for item in AttentionBoard(studio.world.engine).read() if item.id == "unknown:youtube"]
    assert (item.alert, item.next_step) == (True, f"phantoms posts show {key} youtube")  # nothing reads it any more
    [out] = studio.posts()
    assert (await posts("settle", key, "youtube", "--there", out["remote_id"], "--yes")).exit_code == 0
    await attempt(studio, key)
    assert (state(studio), studio.world.row(key, "youtube/post")["state"]) == ("confirmed", "done")


async def test_a_post_needs_a_person_after_so_many_reads_and_is_shown_with_each_of_them(studio: Studio) -> None:
    key = await unknown(studio, "drop_before")

    def item() -> tuple[bool, str]:
        [found] = [item for item in AttentionBoard(studio.world.engine).read() if item.id == "unknown:youtube"]
        return found.alert, found.what

    assert not item()[0]
    studio.sandbox.faults.append(Fault("youtube.list", kind="drop_before"))
    for _ in range(NEEDS_PERSON_READS):
        await attempt(studio, key)
    assert (item()[0], f"{NEEDS_PERSON_READS} reads did not settle it" in item()[1]) == (True, True), item()
    shown = await posts("show", key, "youtube")
    assert shown.output.count(" unknown lost: ") == NEEDS_PERSON_READS + 1, shown.output
    assert f"phantoms posts settle {key} youtube --not-there" in shown.output
    studio.sandbox.faults.clear()
    await attempt(studio, key)
    assert (state(studio), len(studio.posts())) == ("confirmed", 1)
    assert [i for i in AttentionBoard(studio.world.engine).read() if i.id == "unknown:youtube"] == []


async def test_the_list_of_posts_can_be_filtered(studio: Studio) -> None:
    [done, waits] = await studio.ready_to_post(count=2)
    await attempt(studio, done)
    studio.sandbox.faults.append(Fault("youtube.update", kind="drop_before", times=1))
    await attempt(studio, waits)
    for arguments, expected in (
        ([], {done, waits}),
        (["--state", "unknown"], {waits}),
        (["--account", "youtube-account", "--state", "confirmed", "--since", "1h"], {done}),
        (["--platform", "tiktok"], set()),
    ):
        result = await posts("list", *arguments)
        assert {key for key in (done, waits) if key in result.output} == expected, result.output
    assert "trial reel" not in (await posts("list")).output
    studio.world.write("UPDATE phantoms.posts SET set_apart = 'trial reel' WHERE state = 'confirmed'")
    assert "confirmed, trial reel, sandbox" in " ".join((await posts("show", done, "youtube")).output.split())
    assert (await posts("list", "--state", "lost")).exit_code == 2
    assert (await posts("show", done, "tiktok")).exit_code != 0


@pytest.mark.parametrize(
    ("platform", "given", "expected"),
    [
        ("youtube", "https://www.youtube.com/shorts/dQw4w9WgXcQ?feature=share", "dQw4w9WgXcQ"),
        ("youtube", "https://www.youtube.com/watch?v=dQw4w9WgXcQ&t=1", "dQw4w9WgXcQ"),
        ("youtube", "https://youtu.be/dQw4w9WgXcQ", "dQw4w9WgXcQ"),
        ("youtube", "https://youtu.be.example.org/dQw4w9WgXcQ", None),
        ("youtube", "http://127.0.0.1:8321/watch/dQw4w9WgXcQ", None),
        ("tiktok", "https://www.tiktok.com/@you/video/7300000000000000000?is_from_webapp=1", "7300000000000000000"),
        ("tiktok", "v_pub_file~v2-1.123", None),
        ("instagram", "https://www.instagram.com/you/reel/DB1xYzAbCdE/", "DB1xYzAbCdE"),
        ("instagram", "https://www.instagram.com/you/", None),
        ("bluesky", "https://bsky.app/profile/you.bsky.social/post/3l6oveex3ii2l", "3l6oveex3ii2l"),
        ("folder", "file:///outbox/a", None),
    ],
)
def test_a_post_is_named_only_by_its_own_platforms_url_or_id(platform: str, given: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(InvalidInput):
            post_reference(Platform(platform), given, sandbox=False)
    else:
        assert post_reference(Platform(platform), given, sandbox=False) == expected
