"""Publishing: only what a person approved, one post at a time on an account, and within the hours at the moment of sending."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from phantoms_dagster.domain.brief_changes import BriefChanges
from phantoms_dagster.domain.claims import StageTask
from phantoms_dagster.domain.errors import InvalidInput, NotYet, Permanent
from phantoms_dagster.domain.models import Channel, Platform, PostingHours, PostOutput, PostWords
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.domain.publication import Finding, Handle, PostRecord, Progress, PublishedPost, PublishVerbs, RemoteId
from phantoms_dagster.platforms.instagram.publisher import InstagramPublisher
from phantoms_dagster.sandbox.core import application
from phantoms_dagster.sandbox.instagram.routes import routes as instagram_routes
from phantoms_dagster.store.brief_edits import BriefEdits
from phantoms_dagster.store.decisions import Decisions
from phantoms_dagster_tests.integration.publishing_world import Clock, FakeTokens, Studio, open_studio
from phantoms_dagster_tests.integration.stage_world import CHANNEL, World, open_world

FINE = Channel.model_validate({**CHANNEL.model_dump(), "hashtags": ["#fine"]})
SPONSORED = Channel.model_validate({**CHANNEL.model_dump(), "hashtags": ["#fine", "#SPONSORED"]})


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
async def studio(world: World, tmp_path: Path) -> AsyncIterator[Studio]:
    async with open_studio(world, tmp_path) as opened:
        yield opened


# --- how a post goes out


@pytest.mark.parametrize("choices", [{}, {"release": "youtube"}])
async def test_a_post_without_a_time_goes_out_on_a_clock_that_never_stands_still(studio: Studio, choices: dict[str, str]) -> None:
    """A clock that was read twice for one decision said each time that the post goes out a moment later."""

    class Running:
        def now(self) -> datetime:
            studio.clock.time += timedelta(milliseconds=1)
            return studio.clock.time

        async def sleep(self, seconds: float) -> None:
            await studio.clock.sleep(seconds)

    channel = Channel.model_validate({**CHANNEL.model_dump(), "youtube": choices})
    [key] = await studio.ready_to_post(channel=channel)
    use_case = studio.publish()
    use_case._clock = Running()
    await studio.make(key, "youtube/post", use_case)
    assert [post["privacy"] for post in studio.posts()] == ["public"]


async def test_a_video_that_youtube_releases_is_handed_over_a_quarter_of_an_hour_before_its_time(studio: Studio) -> None:
    """Until then it can be moved. Afterwards only YouTube's clock makes it public."""
    handing = Channel.model_validate({**CHANNEL.model_dump(), "youtube": {"release": "youtube"}})
    [key] = await studio.ready_to_post(channel=handing)
    slot = studio.clock.now() + timedelta(minutes=40)

    def move(at: datetime) -> None:
        studio.world.write("UPDATE phantoms.videos SET publish_at = :at WHERE key = :key", at=at, key=key)

    async def run() -> PostOutput | NotYet:
        store, claim = await studio.claim(key)
        try:
            return (await studio.publish()(StageTask(claim, await store.attempt(claim)))).output  # type: ignore[return-value]
        except NotYet as wait:
            return wait

    move(slot)
    early = await run()
    assert isinstance(early, NotYet)
    assert early.until == slot - timedelta(minutes=15)
    await studio.clock.sleep(25 * 60)
    slot += timedelta(minutes=5)
    move(slot)
    moved = await run()
    assert isinstance(moved, NotYet)
    assert moved.until == slot - timedelta(minutes=15)
    await studio.clock.sleep(5 * 60)
    assert studio.sandbox.ledger == []
    waiting = await run()
    assert isinstance(waiting, NotYet)
    assert waiting.until is not None
    assert timedelta(0) < waiting.until - slot < timedelta(minutes=1)
    assert [entry["kind"] for entry in studio.sandbox.ledger] == ["youtube.video"]
    await studio.clock.sleep(16 * 60)
    posted = await run()
    assert isinstance(posted, PostOutput)
    assert posted.published_at >= slot.replace(microsecond=0)
    assert len(studio.posts()) == 1


async def test_a_trial_reel_goes_out_as_it_was_approved_and_the_ledger_sets_it_apart(studio: Studio) -> None:
    """The channel stopped its trials after the approval. What was approved counts."""
    instagram = Platform("instagram")
    trials = Channel.model_validate({**CHANNEL.model_dump(), "instagram": {"trial": "manual"}})
    [key] = await studio.rendered(channel=trials, platforms=(instagram,))
    Decisions(studio.world.engine).decide(key, approved=True, reviewer="ann", via="cli")
    approval = await studio.approved(key)
    assert [post.terms.summary() for post in approval.words if post.terms] == [
        "a trial reel for people who do not follow the account; its owner shares it with followers in the app"
    ]
    studio.world.catalogue.put_channels([CHANNEL])
    await studio.varied(key, instagram)
    studio.sandbox.config["instagram.check_media"] = False
    async with TestServer(application(studio.sandbox, [instagram_routes(studio.sandbox)])) as server:
        base_url = str(server.make_url("/instagram"))
        publisher = InstagramPublisher(
            client=studio.client,
            base_url=base_url,
            upload_url=f"{base_url}/rupload",
            tokens=FakeTokens(),
            clock=studio.clock,
            sandbox=True,
        )
        use_case = studio.publish()
        use_case._publishers = {instagram: publisher}
        await studio.make(key, "instagram/post", use_case)
    [post] = studio.posts()
    assert post["choices"] == {"trial_params": '{"graduation_strategy": "MANUAL"}'}
    [row] = studio.world.rows("SELECT set_apart FROM phantoms.posts")
    assert row["set_apart"] == "trial reel"


# --- what was approved ----------------------------------------------------------------------------------------------


async def test_hashtags_that_a_channel_got_after_the_render_are_not_approved_unseen(studio: Studio) -> None:
    [key] = await studio.rendered(channel=FINE, platforms=Platform.usual())
    studio.world.catalogue.put_channels([SPONSORED])  # as any `phantoms add` does
    decisions = Decisions(studio.world.engine)
    with pytest.raises(InvalidInput, match=r"other words .*YouTube caption: \+#SPONSORED.*phantoms show.*--content") as refused:
        decisions.decide(key, approved=True, reviewer="ann", via="cli")
    seen = decisions.review(key)
    assert seen is not None
    assert seen.content[:12] in str(refused.value)
    assert decisions.decide(key, approved=True, reviewer="ann", via="cli", content_sha256=seen.content[:12]).new
    assert all("#SPONSORED" in post.caption for post in (await studio.approved(key)).words)


async def test_hashtags_that_a_channel_gets_after_the_approval_are_posted_nowhere(studio: Studio) -> None:
    [key] = await studio.rendered(channel=FINE, platforms=Platform.usual())
    Decisions(studio.world.engine).decide(key, approved=True, reviewer="ann", via="cli")
    studio.world.catalogue.put_channels([SPONSORED])
    await studio.approved(key)
    for platform in Platform.usual():
        assert (await studio.varied(key, platform)).caption == "About the sea.\n\n#sea #fine"
    await studio.make(key, "youtube/post", studio.publish())
    assert [post["caption"] for post in studio.posts()] == ["About the sea.\n\n#sea #fine"]


async def test_a_hash_that_was_looked_at_and_is_not_that_of_now_is_refused(studio: Studio) -> None:
    [key] = await studio.rendered(channel=FINE)
    decisions = Decisions(studio.world.engine)
    looked_at = decisions.review(key)
    assert looked_at is not None
    studio.world.catalogue.put_channels([SPONSORED])
    with pytest.raises(InvalidInput, match="is not what was looked at"):
        decisions.decide(key, approved=True, reviewer="ann", via="dagster", content_sha256=looked_at.content)


@pytest.mark.parametrize("changed", ["title", "caption", "content_sha256"])
async def test_words_that_are_not_those_of_the_approval_never_reach_the_platform(studio: Studio, changed: str) -> None:
    [key] = await studio.ready_to_post()
    other = "ab" * 32 if changed == "content_sha256" else "Buy now"
    studio.world.write(
        "UPDATE phantoms.stages SET output = jsonb_set(output, CAST(:path AS text[]), to_jsonb(CAST(:other AS text)))"
        " WHERE stage = 'youtube/variant'",
        path=[changed],
        other=other,
    )
    store, claim = await studio.claim(key)
    with pytest.raises(Permanent, match="not what was approved") as refused:
        await studio.publish()(StageTask(claim, await store.attempt(claim)))
    assert refused.value.code == "content_changed"
    assert studio.sandbox.calls == {}


@pytest.mark.parametrize("changed", [{"privacy": "unlisted"}, {"made_for_kids": True}])
async def test_an_approval_that_was_changed_behind_its_back_publishes_nothing(studio: Studio, changed: dict[str, object]) -> None:
    [key] = await studio.ready_to_post()
    row = studio.world.row(key, "approval")["output"]
    words = PostWords.model_validate(row["words"][0]).model_copy(update=changed)
    studio.world.write(
        "UPDATE phantoms.stages SET output = jsonb_set(output, '{words,0}', CAST(:words AS jsonb)) WHERE stage = 'approval'",
        words=words.model_dump_json(),
    )
    store, claim = await studio.claim(key)
    with pytest.raises(Permanent, match="not what was approved"):
        await studio.publish()(StageTask(claim, await store.attempt(claim)))
    assert studio.sandbox.calls == {}


async def test_a_video_and_words_that_fit_each_other_are_not_posted_when_the_approved_hash_is_that_of_others(
    studio: Studio,
) -> None:
    [key] = await studio.ready_to_post()
    studio.world.write(
        "UPDATE phantoms.stages SET output = jsonb_set(output, '{content_sha256}', to_jsonb(CAST(:other AS text)))"
        " WHERE stage = 'approval'",
        other="ab" * 32,
    )
    store, claim = await studio.claim(key)
    with pytest.raises(Permanent, match="not what was approved"):
        await studio.publish()(StageTask(claim, await store.attempt(claim)))
    assert studio.sandbox.calls == {}


async def test_a_privacy_or_audience_changed_after_the_approval_changes_nothing_that_was_approved(
    studio: Studio,
) -> None:
    [key] = await studio.ready_to_post()
    studio.world.catalogue.put_channels([CHANNEL.model_copy(update={"made_for_kids": True})])
    publish = studio.publish()
    publish._privacy = {Platform("youtube"): "private"}
    await studio.make(key, "youtube/post", publish)
    assert [(post["privacy"]) for post in studio.posts()] == ["public"]


# --- one post at a time ---------------------------------------------------------------------------------------------


class Slow:
    """A publisher that opens its post and then takes its time; it counts how many are open at once."""

    provider = "youtube"
    platform = Platform("youtube")
    sandbox = True
    account_first = True

    def __init__(self) -> None:
        self.open = self.most = 0

    @asynccontextmanager
    async def verbs(self, job: PublishJob) -> AsyncIterator[SlowPost]:
        self.open += 1
        self.most = max(self.most, self.open)
        yield SlowPost(job)
        self.open -= 1


class SlowPost:
    def __init__(self, job: PublishJob) -> None:
        self._job = job

    def check(self) -> None:
        pass

    async def open(self) -> Handle:
        for _ in range(20):
            await asyncio.sleep(0)
        return {"session": "s"}

    async def upload(self, record: PostRecord) -> Progress:
        return Progress(self._job.size, ready=True)

    async def commit(self, record: PostRecord) -> RemoteId:
        return RemoteId(self._job.video_key)

    async def find(self, record: PostRecord) -> Finding:
        raise AssertionError("nothing was left behind")

    async def confirm(self, record: PostRecord) -> PublishedPost:
        return PublishedPost(self._job.video_key, "https://example.org", datetime.now(UTC))


async def test_posts_of_one_run_on_one_account_take_turns_and_none_is_put_off(studio: Studio) -> None:
    keys = await studio.ready_to_post(count=3)
    slow = Slow()
    publish = studio.publish(slow)
    claims = [await studio.world.claimed("youtube/post", key, owner="poster") for key in keys]
    made = await asyncio.gather(*[publish(StageTask(claim, await store.attempt(claim))) for store, claim in claims])
    assert slow.most == 1
    assert [m.output.remote_id for m in made if isinstance(m.output, PostOutput)] == keys


# --- the hours, at the moment of sending ----------------------------------------------------------------------------


def hours_from(now: datetime) -> Channel:
    """A channel that posts in this very hour alone."""
    return CHANNEL.model_copy(update={"posting_hours": PostingHours(start=now.hour, end=now.hour + 1)})


async def test_posts_whose_turn_comes_after_closing_time_wait_for_the_morning(studio: Studio) -> None:
    studio.clock.time = studio.clock.time.replace(hour=12, minute=59, second=0)
    keys = await studio.ready_to_post(count=3, channel=hours_from(studio.clock.time))
    before = studio.youtube()

    class SlowFirst:
        """Ahead of the real adapter: while the first post is under way the hour ends."""

        provider, platform, sandbox, account_first = before.provider, before.platform, before.sandbox, False

        @asynccontextmanager
        async def verbs(self, job: PublishJob) -> AsyncIterator[PublishVerbs]:
            async with before.verbs(job) as verbs:
                yield verbs
            studio.clock.time = studio.clock.time.replace(hour=13, minute=5)

    publish = studio.publish(SlowFirst())
    claims = [await studio.world.claimed("youtube/post", key, owner="poster") for key in keys]
    tries = [publish(StageTask(claim, await store.attempt(claim))) for store, claim in claims]
    ended = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(e).__name__ for e in ended].count("NotYet") == 2
    assert len(studio.posts()) == 1
    assert all(str(e).startswith("goes out at") for e in ended if isinstance(e, NotYet))
    assert studio.sandbox.calls["youtube.open"] == 1


async def test_a_video_that_is_processed_until_after_closing_time_becomes_public_in_the_morning(studio: Studio) -> None:
    studio.clock.time = studio.clock.time.replace(hour=12, minute=59, second=58)
    [key] = await studio.ready_to_post(channel=hours_from(studio.clock.time))
    studio.sandbox.config["youtube.processing_seconds"] = 30
    store, claim = await studio.claim(key)
    with pytest.raises(NotYet, match="goes out at") as waits:
        await studio.publish()(StageTask(claim, await store.attempt(claim)))
    assert studio.posts() == []
    assert waits.value.until is not None
    assert waits.value.until.hour == 12
    studio.clock.time = waits.value.until + timedelta(seconds=1)
    store, claim = await studio.claim(key, owner="morning")
    await studio.publish()(StageTask(claim, await store.attempt(claim)))
    assert len(studio.posts()) == 1
    assert studio.sandbox.calls["youtube.open"] == 1


async def test_a_post_that_is_due_goes_out_although_the_clock_moves_from_one_look_to_the_next(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    [key] = await studio.ready_to_post()

    def ticking(clock: Clock) -> datetime:
        clock.time += timedelta(microseconds=1)
        return clock.time

    monkeypatch.setattr(Clock, "now", ticking)
    store, claim = await studio.claim(key)
    await studio.publish()(StageTask(claim, await store.attempt(claim)))
    assert len(studio.posts()) == 1


# --- a token is sent to its own service only ------------------------------------------------------------------------


async def test_a_stored_upload_session_at_another_host_never_gets_the_token(studio: Studio) -> None:
    [key] = await studio.ready_to_post()
    store, claim = await studio.claim(key)
    await studio.publish()._ledgers.post(
        claim, account="youtube-account", marker="m", video=await studio.media_file(key), caption="", sandbox=False
    )
    studio.world.write_post(
        "UPDATE phantoms.posts SET state = 'uploading', upload_offset = 10, handle = jsonb_build_object('session',"
        " 'http://127.0.0.1:9/upload?upload_id=x', 'opened_at', '2026-11-26T00:00:00+00:00', 'last_byte_sent', false)"
    )
    sent: list[str] = []
    studio.client.event_hooks["request"] = [lambda request: _note(sent, str(request.url))]
    await studio.publish(studio.youtube(sandbox=False))(StageTask(claim, await store.attempt(claim)))
    assert all(url.startswith(studio.base_url) for url in sent)
    assert len(studio.posts()) == 1


async def _note(sent: list[str], url: str) -> None:
    sent.append(url)


async def test_a_platform_added_after_the_approval_is_approved_again_and_only_it_is_posted(studio: Studio) -> None:
    [key] = await studio.ready_to_post(channel=FINE)
    await studio.make(key, "youtube/post", studio.publish())
    BriefEdits(studio.world.engine).edit(key, BriefChanges(platforms=(Platform("youtube"), Platform("tiktok"))), by="test")
    decisions = Decisions(studio.world.engine)
    seen = decisions.review(key)
    assert seen is not None
    with pytest.raises(NotYet):  # the old decision knew nothing of TikTok
        await studio.approved(key)
    studio.world.let_leases_expire()
    assert decisions.decide(key, approved=True, reviewer="ann", via="cli", content_sha256=seen.content).new
    assert [words.platform for words in (await studio.approved(key)).words] == [Platform("youtube"), Platform("tiktok")]
    await studio.varied(key, Platform("tiktok"))
    assert studio.world.due("youtube/post") == []
    assert studio.world.due("tiktok/post") == [key]
    assert len(studio.posts()) == 1
