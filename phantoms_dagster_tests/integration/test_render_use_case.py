"""Rendering through the ledger of paid renders: submitted at most once, followed after a crash, paid for once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from phantoms_dagster.domain.claims import Result, StageResult, StageTask
from phantoms_dagster.domain.errors import NotYet, Permanent, Transient, Unknown
from phantoms_dagster.domain.models import MediaFile, Platform, Probe, RenderedVideoOutput
from phantoms_dagster.domain.paid_job import AboutToBill, JobStatus, NotBilled
from phantoms_dagster.domain.ports import FitResult, RenderJob
from phantoms_dagster.domain.publication import Found, RemoteId, Undecided
from phantoms_dagster.domain.retry import RetryPolicy
from phantoms_dagster.domain.stages import stage
from phantoms_dagster.production.runner import StageRunner
from phantoms_dagster.production.stages.rendered_video import RenderVideo
from phantoms_dagster.store.ledgers import PostgresLedgers
from phantoms_dagster_tests.integration.stage_world import CHANNEL, PERSON, PROBE, FakeClock, World, media_file, open_world

STAGE = stage("rendered_video")
RENDERING = JobStatus("rendering")
PRICE = Decimal("0.20")
DONE = JobStatus("done", url="https://example.org/r1.mp4", cost=Decimal("0.20"))


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


class Service:
    """A render API that outlives its clients: what it accepted, it bills and renders.

    `trouble`, taken from the front, happens on submissions: `refuse` and `unsent` before billing, `reject`, `lose` (accepted,
    the answer lost), `vanish` (lost, and never accepted), `kill` (our process ends after acceptance), `kill before`.
    """

    provider = "render-api"
    sandbox = False
    at_once = False

    def __init__(self, world: World) -> None:
        self._world = world
        self.trouble: list[str] = []
        self.statuses: list[JobStatus] = []
        self.billed: dict[str, str] = {}
        self.names: list[str] = []
        self.seen: list[tuple[str, str]] = []
        self.asked: list[str] = []
        self.jobs: list[RenderJob] = []
        self.findable = True
        self.forgotten: set[str] = set()
        self.gone: set[str] = set()

    def journal(self) -> str:
        """The state of the ledger's newest row, as another process would read it."""
        return str(self._world.rows("SELECT state FROM phantoms.renders ORDER BY id DESC LIMIT 1")[0]["state"])

    async def submit(self, job: RenderJob, about_to_bill: AboutToBill) -> RemoteId | NotBilled:
        trouble = self.trouble.pop(0) if self.trouble else ""
        self.names.append(job.channel_title)
        self.seen.append(("upload", self.journal()))
        self.jobs.append(job)
        if trouble == "refuse":
            error = Permanent("no credits", provider=self.provider, code="402")
            return NotBilled("402: no credits", error=error)
        if trouble == "kill before":
            raise asyncio.CancelledError
        await about_to_bill()
        self.seen.append(("bill", self.journal()))
        if trouble == "unsent":
            return NotBilled("never sent", error=Transient("connection refused", provider=self.provider))
        if trouble == "vanish":
            raise Unknown("the answer was lost", provider=self.provider)
        self.billed[job.attempt_id] = f"r{len(self.billed) + 1}"
        if trouble == "lose":
            raise Unknown("the answer was lost", provider=self.provider)
        if trouble == "bug":
            raise RuntimeError("a mistake of ours, after the render was taken")
        if trouble == "kill":
            raise asyncio.CancelledError
        return RemoteId(self.billed[job.attempt_id])

    def price(self, seconds: float) -> Decimal:
        return PRICE

    async def status(self, render_id: str) -> JobStatus:
        if render_id in self.forgotten:
            raise Permanent("404", provider=self.provider, code="404")
        self.asked.append(render_id)
        self.seen.append(("status", self.journal()))
        return self.statuses.pop(0) if self.statuses else DONE

    async def find(self, attempt_id: str) -> Found | Undecided:
        found = self.billed.get(attempt_id) if self.findable else None
        return Undecided() if found is None else Found(RemoteId(found))

    async def fetch(self, render_id: str, destination: Path, *, url: str | None = None) -> None:
        assert url == DONE.url
        if render_id in self.gone:
            raise Permanent("no file", provider=self.provider, code="gone")
        await asyncio.to_thread(destination.write_bytes, render_id.encode())


class Studio:
    """Sees what the test sets."""

    def __init__(self) -> None:
        self.lacks: tuple[str, ...] = ()
        self.sees = PROBE
        self.trouble: list[Exception] = []

    async def probe(self, path: Path, *, loudness: bool = False) -> Probe:
        assert path.exists()
        if self.trouble:
            raise self.trouble.pop(0)
        return self.sees

    async def missing_glyphs(self, texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(part for part in self.lacks if any(part in text for text in texts))

    async def thumbnail(self, path: Path, destination: Path) -> None:
        await asyncio.to_thread(destination.write_bytes, b"still")

    async def fit(
        self, path: Path, platform: Platform, destination: Callable[[], Path], *, known: Probe | None = None
    ) -> FitResult:
        raise NotImplementedError


class Media:
    """A media store that names files by their content."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.scratches: list[Path] = []

    async def add(self, path: Path) -> MediaFile:
        return media_file(await asyncio.to_thread(path.read_text), path.suffix)

    async def local(self, file: MediaFile) -> Path:
        return self._folder / "voice.wav"

    async def remove(self, file: MediaFile, *, unused_seconds: float = 0) -> bool:
        raise NotImplementedError

    async def public_url(self, file: MediaFile, lasts: timedelta) -> str | None:
        raise NotImplementedError

    def scratch(self) -> Path:
        raise NotImplementedError

    def scratch_file(self, suffix: str) -> Path:
        self.scratches.append(self._folder / f"scratch-{len(self.scratches)}{suffix}")
        return self.scratches[-1]


class Shop:
    """A video that waits for its render, and everything that makes it."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.service = Service(world)
        self.studio = Studio()
        self.media = Media(folder)
        self.clock = FakeClock()
        self._runs = 0

    async def video(self, **changes: Any) -> str:
        key = self.world.add(**changes)[0]
        await self.world.carry([key], "script", "voiceover")
        return key

    def use_case(self, *, max_wait_seconds: float = 30) -> RenderVideo:
        return RenderVideo(
            renderer=self.service,
            studio=self.studio,
            media=self.media,
            ledgers=PostgresLedgers(self.world.async_engine),
            clock=self.clock,
            poll_seconds=3,
            max_wait_seconds=max_wait_seconds,
        )

    async def attempt(self, key: str, *, max_wait_seconds: float = 30) -> StageResult:
        """One attempt, as a new process would make it: the earlier holder of the claim is dead."""
        self.world.let_leases_expire()
        self._runs += 1
        store, claim = await self.world.claimed("rendered_video", key, owner=f"process-{self._runs}")
        return await self.use_case(max_wait_seconds=max_wait_seconds)(StageTask(claim, await store.attempt(claim)))

    async def run(self, key: str, *, attempts: int = 3) -> Result:
        """A whole run."""
        self.world.let_leases_expire()
        self._runs += 1
        runner = StageRunner(
            store=self.world.store(),
            use_cases={"rendered_video": self.use_case()},
            clock=self.clock,
            policy=RetryPolicy(attempts=attempts, max_wait_seconds=120, give_up_seconds=0),
            random=lambda: 1.0,
            new_owner=lambda: f"process-{self._runs}",
            in_flight=10,
            heartbeat_seconds=20,
        )
        return (await runner.run(STAGE, [key], PERSON))[0]


@pytest.fixture
async def shop(world: World, tmp_path: Path) -> Shop:
    return Shop(world, tmp_path)


async def test_a_render_is_written_down_before_it_is_billed_and_before_it_is_followed(shop: Shop) -> None:
    made = await shop.attempt(await shop.video())
    assert shop.service.seen == [("upload", "intent"), ("bill", "sending"), ("status", "submitted")]
    assert shop.service.journal() == "done"
    assert isinstance(made.output, RenderedVideoOutput)
    assert (made.output.render_id, made.output.renderer, made.cost, made.provider_ref) == (
        "r1",
        "render-api",
        Decimal("0.20"),
        "r1",
    )
    assert (made.output.video, made.output.thumbnail) == (media_file("r1"), media_file("still", ".jpg"))
    assert not any(path.exists() for path in shop.media.scratches)


async def test_what_no_font_has_is_left_out_of_the_picture_and_told(shop: Shop) -> None:
    key = await shop.video()
    shop.studio.lacks = ("d",)
    made = await shop.attempt(key)
    assert isinstance(made.output, RenderedVideoOutput)
    assert made.output.not_shown == ("d",)
    job = shop.service.jobs[0]
    assert job.title
    assert not any("d" in text for text in [job.title, job.channel_title, *job.scene_titles, *(s.text for s in job.sentences)])


async def test_a_render_is_looked_at_until_it_is_done(shop: Shop) -> None:
    shop.service.statuses = [RENDERING] * 4
    await shop.attempt(await shop.video())
    assert shop.clock.slept == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert shop.service.asked == ["r1"] * 5


async def test_a_renderer_that_is_done_at_once_is_asked_at_once(shop: Shop) -> None:
    shop.service.at_once = True
    await shop.attempt(await shop.video())
    assert (shop.clock.slept, shop.service.asked) == ([], ["r1"])


async def test_a_render_of_an_earlier_try_is_checked_before_anyone_waits(shop: Shop) -> None:
    key = await shop.video()
    shop.service.statuses = [RENDERING] * 20
    with pytest.raises(NotYet):
        await shop.attempt(key)
    shop.service.statuses, shop.clock.slept = [], []
    await shop.attempt(key)
    assert shop.clock.slept == []


async def test_a_render_that_outlasts_the_patience_is_left_and_found_finished_later(shop: Shop) -> None:
    key = await shop.video()
    shop.service.statuses = [RENDERING] * 13
    with pytest.raises(NotYet, match="render r1 is still running"):
        await shop.attempt(key)
    assert shop.service.journal() == "submitted"
    made = await shop.attempt(key)
    assert made.provider_ref == "r1"
    assert len(shop.service.billed) == 1


async def test_a_process_killed_after_its_submission_resumes_with_the_same_render(shop: Shop) -> None:
    key = await shop.video()
    shop.service.trouble = ["kill"]
    with pytest.raises(asyncio.CancelledError):
        await shop.attempt(key)
    assert shop.service.journal() == "sending"
    made = await shop.attempt(key)
    assert (made.provider_ref, list(shop.service.billed.values())) == ("r1", ["r1"])


async def test_a_process_killed_while_it_follows_a_render_resumes_with_the_same_one(shop: Shop) -> None:
    key = await shop.video()
    shop.service.statuses = [RENDERING]
    with pytest.raises(NotYet):
        await shop.attempt(key, max_wait_seconds=0)
    shop.world.let_leases_expire()
    assert (await shop.run(key)).outcome == "done"
    assert (shop.service.asked, len(shop.service.billed)) == (["r1", "r1"], 1)


async def test_a_process_killed_before_anything_was_billed_starts_afresh(shop: Shop) -> None:
    key = await shop.video()
    shop.service.trouble = ["kill before"]
    with pytest.raises(asyncio.CancelledError):
        await shop.attempt(key)
    assert shop.service.journal() == "intent"
    assert (await shop.attempt(key)).provider_ref == "r1"


async def test_an_answer_that_was_lost_is_found_again_by_the_attempts_marker(shop: Shop) -> None:
    key = await shop.video()
    shop.service.trouble = ["lose"]
    with pytest.raises(Unknown):
        await shop.attempt(key)
    assert shop.service.journal() == "unknown"
    made = await shop.attempt(key)
    assert (made.provider_ref, len(shop.service.billed)) == ("r1", 1)


async def test_a_mistake_of_ours_after_the_render_was_taken_does_not_bill_it_again(shop: Shop) -> None:
    """Only what the adapter says was refused or never sent may be sent again; everything else is looked for first."""
    key = await shop.video()
    shop.service.trouble = ["bug"]
    with pytest.raises(RuntimeError):
        await shop.attempt(key)
    assert shop.service.journal() == "sending"
    made = await shop.attempt(key)
    assert (made.provider_ref, len(shop.service.billed)) == ("r1", 1)


@pytest.mark.parametrize("trouble", ["lose", "kill"])
async def test_what_may_have_been_billed_is_not_sent_again_before_it_must_have_ended(shop: Shop, trouble: str) -> None:
    key = await shop.video()
    shop.service.trouble = [trouble]
    shop.service.findable = False
    with pytest.raises((Unknown, asyncio.CancelledError)):
        await shop.attempt(key)
    for minutes in (0, 15, 14):
        shop.clock.time += timedelta(minutes=minutes)
        with pytest.raises(Unknown) as caught:
            await shop.attempt(key)
        assert caught.value.code == "render_unknown"
        assert caught.value.retry_after is not None
        assert caught.value.retry_after > 0
    assert len(shop.service.billed) == 1
    shop.clock.time += timedelta(minutes=2)
    with pytest.raises(Transient) as lost:
        await shop.attempt(key)
    assert lost.value.code == "render_lost"
    assert len(shop.service.billed) == 1
    assert (await shop.attempt(key)).provider_ref == "r2"


async def test_a_render_that_turns_up_late_is_still_used(shop: Shop) -> None:
    key = await shop.video()
    shop.service.trouble, shop.service.findable = ["lose"], False
    for _ in range(2):
        with pytest.raises(Unknown):
            await shop.attempt(key)
    shop.service.findable = True
    assert (await shop.attempt(key)).provider_ref == "r1"


async def test_a_lost_answer_defers_the_video_without_using_up_an_attempt(shop: Shop) -> None:
    key = await shop.video()
    shop.service.trouble, shop.service.findable = ["vanish"], False
    result = await shop.run(key)
    assert result.outcome == "deferred"
    assert shop.world.row(key, "rendered_video")["attempts"] == 0
    assert len([step for step, _ in shop.service.seen if step == "bill"]) == 1


async def test_a_render_that_failed_costs_an_attempt_and_the_next_one_is_a_new_render(shop: Shop) -> None:
    key = await shop.video()
    shop.service.statuses = [JobStatus("failed", error="out of memory")]
    result = await shop.run(key)
    assert (result.outcome, result.output.render_id if isinstance(result.output, RenderedVideoOutput) else "") == ("done", "r2")
    assert shop.world.row(key, "rendered_video")["attempts"] == 1
    assert shop.world.attempts(key, "rendered_video")[0]["message"] == "the render failed: out of memory"
    assert len(set(shop.service.billed)) == 2


async def test_renders_that_keep_failing_end_in_a_dead_letter(shop: Shop) -> None:
    key = await shop.video()
    shop.service.statuses = [JobStatus("failed")] * 5
    result = await shop.run(key, attempts=2)
    assert (result.outcome, result.message) == ("failed", "the render failed: no reason given")
    assert (len(shop.service.billed), len(shop.world.letters(key))) == (2, 1)


@pytest.mark.parametrize(("trouble", "error"), [("refuse", Permanent), ("unsent", Transient)])
async def test_what_was_never_accepted_may_be_sent_again_at_once(shop: Shop, trouble: str, error: type[Exception]) -> None:
    key = await shop.video()
    shop.service.trouble = [trouble]
    with pytest.raises(error):
        await shop.attempt(key)
    assert shop.service.journal() == "intent"
    assert (await shop.attempt(key)).provider_ref == "r1"


async def test_a_video_that_came_down_damaged_is_fetched_again_not_rendered_again(shop: Shop) -> None:
    """A storm made dead letters of downloads that a proxy had answered with a page of its own."""
    key = await shop.video()
    shop.studio.trouble = [Permanent("unreadable media: master.mp4", provider="ffmpeg", code="unreadable media")]
    with pytest.raises(Transient, match="came down damaged") as caught:
        await shop.attempt(key)
    assert caught.value.code == "damaged"
    made = await shop.attempt(key)
    assert (made.provider_ref, len(shop.service.billed)) == ("r1", 1)


async def test_a_file_that_is_too_short_is_not_taken(shop: Shop) -> None:
    key = await shop.video()
    shop.studio.sees = PROBE.model_copy(update={"seconds": 0.4})
    with pytest.raises(Permanent, match=r"unusable \(0\.4 s\)"):
        await shop.attempt(key)
    assert not any(path.exists() for path in shop.media.scratches)


async def test_a_video_that_has_cost_more_than_its_budget_is_not_rendered_again(shop: Shop) -> None:
    key = await shop.video()
    shop.world.write("UPDATE phantoms.attempts SET cost = :cost WHERE stage = 'script'", cost=CHANNEL.budget_usd + 1)
    with pytest.raises(Permanent, match=r"2\.00 USD are already spent") as caught:
        await shop.attempt(key)
    assert caught.value.code == "over_budget"
    assert shop.service.seen == []


def spent(shop: Shop, key: str) -> list[Decimal]:
    """What is booked with each attempt of the render."""
    return [a["cost"] for a in shop.world.attempts(key, "rendered_video") if a["cost"]]


async def test_a_render_that_the_service_forgot_is_booked_once_and_made_again(shop: Shop) -> None:
    """Four replays of such a dead letter made one submission: each asked for the forgotten render again."""
    key = await shop.video()
    shop.service.statuses = [RENDERING] * 100
    with pytest.raises(NotYet, match="still running"):
        await shop.attempt(key)
    shop.service.forgotten, shop.service.statuses = {"r1"}, []
    shop.clock.time += timedelta(minutes=2)
    with pytest.raises(Transient, match=r"no longer knows render r1; 0\.20 USD is booked as spent") as gone:
        await shop.attempt(key)
    assert gone.value.code == "render_gone"
    assert spent(shop, key) == [PRICE]
    result = await shop.run(key)
    assert result.outcome == "done"
    assert list(shop.service.billed.values()) == ["r1", "r2"]
    assert spent(shop, key) == [PRICE, PRICE], "as many as were billed"
    assert shop.world.row(key, "rendered_video")["cost"] == 2 * PRICE


async def test_a_render_that_is_not_known_yet_is_waited_for(shop: Shop) -> None:
    key = await shop.video()
    shop.service.forgotten = {"r1"}
    with pytest.raises(NotYet, match="does not know render r1 yet"):
        await shop.attempt(key)
    shop.service.forgotten = set()
    assert (await shop.attempt(key)).provider_ref == "r1"
    assert len(shop.service.billed) == 1


async def test_a_render_that_never_ends_is_booked_and_made_again_after_the_deadline(shop: Shop) -> None:
    key = await shop.video()
    shop.service.statuses = [RENDERING] * 500
    for minutes in (0, 50):
        shop.clock.time += timedelta(minutes=minutes)
        with pytest.raises(NotYet, match="still running"):
            await shop.attempt(key)
    shop.clock.time += timedelta(minutes=11)
    with pytest.raises(Transient, match=r"has not ended after 6\d minutes; 0\.20 USD is booked as spent"):
        await shop.attempt(key)
    shop.service.statuses = []
    assert (await shop.attempt(key)).provider_ref == "r2"
    assert spent(shop, key) == [PRICE]


async def test_renders_that_never_end_stop_at_the_budget(shop: Shop) -> None:
    key = await shop.video()
    shop.world.write("UPDATE phantoms.attempts SET cost = :cost WHERE stage = 'script'", cost=CHANNEL.budget_usd - PRICE / 2)
    shop.service.statuses = [JobStatus("failed")] * 50
    result = await shop.run(key, attempts=10)
    assert (result.outcome, result.error_class) == ("failed", "permanent")
    assert "are already spent" in result.message
    assert len(shop.service.billed) == 1, "within one run, too, the budget knows what was lost"


@pytest.mark.parametrize("trouble", ["lose", "vanish"])
async def test_a_lost_render_is_booked_with_the_attempt_that_sent_it(shop: Shop, trouble: str) -> None:
    key = await shop.video()
    shop.service.trouble, shop.service.findable = [trouble], False
    with pytest.raises(Unknown):
        await shop.attempt(key)
    shop.clock.time += timedelta(minutes=31)
    with pytest.raises(Transient):
        await shop.attempt(key)
    assert shop.world.attempts(key, "rendered_video")[0]["cost"] == PRICE
    assert spent(shop, key) == [PRICE]


async def test_a_render_whose_file_is_gone_or_unusable_is_booked_and_a_replay_makes_another(shop: Shop) -> None:
    key = await shop.video()
    shop.service.gone = {"r1"}
    with pytest.raises(Transient, match="the file of render r1 is gone"):
        await shop.attempt(key)
    shop.studio.sees = PROBE.model_copy(update={"seconds": 0.4})
    with pytest.raises(Permanent, match="unusable"):
        await shop.attempt(key)
    shop.studio.sees = PROBE
    assert (await shop.attempt(key)).provider_ref == "r3"
    assert spent(shop, key) == [PRICE, PRICE]


async def test_a_video_for_tiktok_does_not_carry_the_channels_name(shop: Shop) -> None:
    everywhere = await shop.attempt(await shop.video(platforms=Platform.usual()))
    elsewhere = await shop.attempt(await shop.video(platforms=(Platform("youtube"), Platform("instagram"))))
    assert shop.service.names == ["", "Facts"]
    assert isinstance(everywhere.output, RenderedVideoOutput)
    assert isinstance(elsewhere.output, RenderedVideoOutput)
    assert (everywhere.output.named, elsewhere.output.named) == (False, True)
