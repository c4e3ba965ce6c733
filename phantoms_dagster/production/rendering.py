"""The `rendered_video` stage: from script and voiceover to the master file, through the ledger of paid renders.

How a renderer makes a video belongs to its adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from phantoms_dagster.domain.errors import NotYet, Permanent, ProviderError, Transient, Unknown
from phantoms_dagster.domain.models import (
    Platform,
    PostWords,
    Probe,
    RenderedVideoOutput,
    ScriptOutput,
    Video,
    VoiceoverOutput,
    content_hash,
)
from phantoms_dagster.domain.ports import Clock, MediaStore, Renderer, RenderJob, RenderStatus, Studio
from phantoms_dagster.domain.text import capitals, without
from phantoms_dagster.domain.wording import DEFAULT_PRIVACY, post_words
from phantoms_dagster.domain.work import Ledgers, Made, RenderJournal, Work

# The first pause between two looks at a render; they double up to the setting.
FIRST_LOOK_SECONDS = 0.5
# A service may take a moment until it knows what it has just taken: only after this long does "unknown" mean "gone".
GONE_AFTER = timedelta(seconds=60)
# Codes of Permanent: the service does not know the render, has no file of it any more, or says that it failed.
GONE = ("404", "410", "gone", "failed")
SHORTEST_SECONDS = 3.0


@contextmanager
def scratch_file(media: MediaStore, suffix: str) -> Iterator[Callable[[], Path]]:
    """A path for a file in progress. It is chosen when somebody asks for it, and nothing is left there afterwards."""
    chosen: Path | None = None
    over = False

    def path() -> Path:
        nonlocal chosen
        if over:  # a thread that goes on after its task was cancelled must leave nothing behind
            raise FileNotFoundError(suffix)
        chosen = chosen or media.scratch_file(suffix)
        return chosen

    try:
        yield path
    finally:
        over = True
        if chosen is not None:
            with suppress(OSError):  # the folder may be gone, and says so where the file is stored
                chosen.unlink(missing_ok=True)


class RenderVideo:
    """Submits a render at most once, follows it, fetches the file and looks at what it really is.

    What will never bring a file is booked as spent, once, and made again: a submission whose answer was lost for `lost_seconds`, a
    render that runs for longer than `deadline_seconds`, one that the service has forgotten, that failed, or whose file is gone or
    unusable. So no render holds a video for ever, and the video's budget knows of each one.
    """

    def __init__(
        self,
        *,
        renderer: Renderer,
        studio: Studio,
        media: MediaStore,
        ledgers: Ledgers,
        clock: Clock,
        poll_seconds: float,
        patience_seconds: float,
        lost_seconds: float = 1800.0,
        privacy: Mapping[Platform, str] = DEFAULT_PRIVACY,
        deadline_seconds: float = 3600.0,
    ) -> None:
        self._privacy = privacy
        self._renderer = renderer
        self._studio = studio
        self._media = media
        self._ledgers = ledgers
        self._clock = clock
        self._lost_after = timedelta(seconds=lost_seconds)
        self._deadline = timedelta(seconds=deadline_seconds)
        self._poll_seconds = poll_seconds
        self._patience_seconds = patience_seconds

    async def __call__(self, work: Work) -> Made:
        """Raises NotYet while the render runs longer than the run's patience."""
        journal = await self._ledgers.render(work.claim, sandbox=self._renderer.sandbox)
        fresh = journal.record.render_id is None
        render_id = await self._submitted(work, journal)
        status = await self._finished(render_id, journal, self._price(work), fresh=fresh)
        billed = self._price(work) if status.cost is None else status.cost
        with scratch_file(self._media, ".mp4") as film, scratch_file(self._media, ".jpg") as picture:
            master, still = film(), picture()
            try:
                await self._renderer.fetch(render_id, master, url=status.url)
            except Permanent as error:
                if error.code not in GONE:
                    raise
                raise await self._given_up(journal, billed, "render_gone", f"the file of render {render_id} is gone") from error
            probe = await self._looked_at(master)
            if probe.seconds < SHORTEST_SECONDS or probe.video_codec == "":
                await journal.save("intent", billed=billed)  # a replay must not be given the same file
                raise Permanent(f"the rendered file is unusable ({probe.seconds:.1f} s)", provider=self._renderer.provider)
            await self._studio.thumbnail(master, still)
            thumbnail = await self._media.add(still)
            video = await self._media.add(master)
        await journal.save("done")
        output = RenderedVideoOutput(
            video=video,
            thumbnail=thumbnail,
            probe=probe,
            renderer=self._renderer.provider,
            render_id=render_id,
            not_shown=await self._not_shown(work),
            words=(words := self._words(work)),
            content_sha256=content_hash(work.claim.output("script", ScriptOutput).script, video, words),
            named=bool(shown_name(work.video)),
        )
        return Made(output, billed, render_id, self._renderer.provider)

    def _price(self, work: Work) -> Decimal:
        return self._renderer.price(work.claim.output("voiceover", VoiceoverOutput).seconds)

    async def _given_up(self, journal: RenderJournal, billed: Decimal, code: str, what: str) -> Transient:
        """Book a render that will never bring a file; the error after which it is made again, if the budget allows it."""
        await journal.save("intent", billed=billed)
        message = f"{what}; it is booked as spent ({billed:.2f} USD) and rendered again"
        return Transient(message, provider=self._renderer.provider, code=code, retry_after=0)

    def _words(self, work: Work) -> tuple[PostWords, ...]:
        """What the posts would say: whoever reviews the film is shown it together with them."""
        script = work.claim.output("script", ScriptOutput).script
        return post_words(script, work.video.channel, work.video.brief.platforms, self._privacy)

    async def _not_shown(self, work: Work) -> tuple[str, ...]:
        """What no font has, of all that stands in the picture: it is left out and told, never drawn as a box."""
        script = work.claim.output("script", ScriptOutput).script
        spoken = work.claim.output("voiceover", VoiceoverOutput).sentences
        texts = [shown_name(work.video), script.title, *(scene.on_screen_text for scene in script.scenes)]
        texts += [sentence.text for sentence in spoken]
        language = work.video.channel.language
        return await self._studio.unshowable([*texts, *(capitals(text, language) for text in texts)])

    async def _looked_at(self, master: Path) -> Probe:
        """What came down. Bytes that are no film are a download gone wrong (a proxy's page): the render is there, paid for."""
        try:
            return await self._studio.probe(master, loudness=True)
        except Permanent as error:
            message = f"the rendered file came down damaged: {error}"
            raise Transient(message, provider=self._renderer.provider, code="damaged", evidence=error.evidence) from error

    async def _submitted(self, work: Work, journal: RenderJournal) -> str:
        record = journal.record
        if record.render_id is not None and record.state in ("submitted", "done"):
            return record.render_id
        if record.attempt_id is not None and record.state in ("sending", "unknown"):
            return await self._recovered(record.attempt_id, journal, self._price(work))
        # The claim knows what was spent when it was made; a render of this very claim may have been booked since.
        spent, budget = max(work.claim.spent, record.spent), work.video.channel.budget_usd
        if spent > budget:
            message = f"{spent:.2f} USD are spent already and the channel's budget is {budget:.2f} USD a video"
            raise Permanent(message, provider="budget", code="over_budget")
        return await self._submit(work, journal)

    async def _submit(self, work: Work, journal: RenderJournal) -> str:
        script = work.claim.output("script", ScriptOutput).script
        voiceover = work.claim.output("voiceover", VoiceoverOutput)
        gone = await self._not_shown(work)
        shown = [(sentence, without(sentence.text, gone)) for sentence in voiceover.sentences]
        job = RenderJob(
            video_key=work.video.key,
            attempt_id=work.attempt.id,
            title=without(script.title, gone),
            hook=without(script.hook, gone),
            scene_titles=tuple(without(scene.on_screen_text, gone) for scene in script.scenes),
            sentences=tuple(sentence.model_copy(update={"text": text}) for sentence, text in shown if text),
            seconds=voiceover.seconds,
            audio=await self._media.local(voiceover.audio),
            palette=work.video.channel.palette,
            channel_title=without(shown_name(work.video), gone),
            language=work.video.channel.language,
        )
        await journal.save("intent", attempt_id=job.attempt_id)

        async def about_to_bill() -> None:
            await journal.save("sending", attempt_id=job.attempt_id)

        try:
            render_id = await self._renderer.submit(job, about_to_bill)
        except Unknown:
            await journal.save("unknown")
            raise
        except (ProviderError, NotYet):
            # Refused, or never sent: nothing was billed and the next attempt starts afresh.
            await journal.save("intent", attempt_id=job.attempt_id)
            raise
        await journal.save("submitted", render_id=render_id)
        return render_id

    async def _recovered(self, attempt_id: str, journal: RenderJournal, price: Decimal) -> str:
        """The render of a submission whose answer was lost. Never submits again before the first one must have ended."""
        render_id = await self._renderer.find(attempt_id)
        if render_id is not None:
            await journal.save("submitted", render_id=render_id)
            return render_id
        sent_at = journal.record.attempted_at or self._clock.now()
        if self._clock.now() - sent_at > self._lost_after:
            raise await self._given_up(journal, price, "render_lost", "a render's answer was lost and it never showed up")
        raise Unknown(
            "a render was sent and its answer lost; it may have been billed, so it is not sent again yet",
            provider=self._renderer.provider,
            code="render_unknown",
            retry_after=(sent_at + self._lost_after - self._clock.now()).total_seconds(),
        )

    async def _finished(self, render_id: str, journal: RenderJournal, price: Decimal, *, fresh: bool) -> RenderStatus:
        """How the render ended. One that is `fresh`, submitted a moment ago, is not looked at before the first pause."""
        sent_at = journal.record.attempted_at or self._clock.now()
        waited, pause, misses = 0.0, min(FIRST_LOOK_SECONDS, self._poll_seconds), 0
        looks = not fresh or self._renderer.at_once
        while True:
            if looks:
                status = await self._status(render_id)
                age = self._clock.now() - sent_at
                if status is None:
                    misses += 1
                    if age <= GONE_AFTER:
                        left = (GONE_AFTER - age).total_seconds() + 1
                        raise NotYet(f"the service does not know render {render_id} yet", retry_after=left)
                    if misses > 1:
                        raise await self._given_up(journal, price, "render_gone", f"the service no longer knows render {render_id}")
                elif status.state == "done":
                    return status
                elif status.state == "failed":
                    await journal.save("intent", billed=price if status.cost is None else status.cost)
                    message = f"the render failed: {status.error or 'no reason given'}"
                    raise Transient(message, provider=self._renderer.provider, code="render_failed")
                elif age > self._deadline:
                    minutes = age.total_seconds() / 60
                    what = f"render {render_id} has not ended after {minutes:.0f} minutes"
                    raise await self._given_up(journal, price, "render_overdue", what)
            if waited >= self._patience_seconds:
                raise NotYet(f"render {render_id} is still running", retry_after=self._patience_seconds + 1)
            await self._clock.sleep(pause)
            waited, pause, looks = waited + pause, min(pause * 2, self._poll_seconds), True

    async def _status(self, render_id: str) -> RenderStatus | None:
        """None: the service does not know the render."""
        try:
            return await self._renderer.status(render_id)
        except Permanent as error:
            if error.code not in GONE:
                raise
            return None


def shown_name(video: Video) -> str:
    """The name that the picture carries. Some platforms, such as TikTok, take no film with a name or logo burnt in.

    All platforms share one master, so a film that also goes to one of these carries no name anywhere.
    """
    plain = any(not platform.spec.words.names_in_picture for platform in video.brief.platforms)
    return "" if plain else video.channel.title
