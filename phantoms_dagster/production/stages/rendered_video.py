"""The `rendered_video` stage makes the master from script and voiceover.

`publication` makes sure that it is paid for once. Each renderer's adapter makes the video.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from phantoms_dagster.domain.claims import Ledgers, StageResult, StageTask
from phantoms_dagster.domain.errors import Permanent, Transient
from phantoms_dagster.domain.models import (
    MediaFile,
    Platform,
    PostWords,
    Probe,
    RenderedVideoOutput,
    ScriptOutput,
    Video,
    VoiceoverOutput,
    content_hash,
)
from phantoms_dagster.domain.paid_job import Fetch, Order, WaitLimits, WrittenOff
from phantoms_dagster.domain.ports import Clock, MediaStore, Renderer, RenderJob, Studio
from phantoms_dagster.domain.text import capitals, without
from phantoms_dagster.domain.wording import DEFAULT_PRIVACY, post_words
from phantoms_dagster.production import publication

SHORTEST_SECONDS = 3.0


@contextmanager
def scratch_file(media: MediaStore, suffix: str) -> Iterator[Callable[[], Path]]:
    """Yield a function that returns the path of a temporary file. The file is deleted at the end of the block."""
    chosen: Path | None = None
    over = False

    def path() -> Path:
        nonlocal chosen
        if over:  # a thread that outlives its cancelled task must not leave a file behind
            raise FileNotFoundError(suffix)
        chosen = chosen or media.scratch_file(suffix)
        return chosen

    try:
        yield path
    finally:
        over = True
        if chosen is not None:
            with suppress(OSError):  # the folder may be gone; storing the file reports that
                chosen.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Master:
    """A downloaded master, its thumbnail and its probe."""

    video: MediaFile
    thumbnail: MediaFile
    probe: Probe


class RenderVideo:
    """Orders a render, fetches the file and probes it."""

    def __init__(
        self,
        *,
        renderer: Renderer,
        studio: Studio,
        media: MediaStore,
        ledgers: Ledgers,
        clock: Clock,
        poll_seconds: float,
        max_wait_seconds: float,
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
        self._waits = WaitLimits(
            timedelta(seconds=lost_seconds), timedelta(seconds=deadline_seconds), poll_seconds, max_wait_seconds
        )

    async def __call__(self, task: StageTask) -> StageResult:
        """Raises NotYet when the render takes longer than the max wait."""
        journal = await self._ledgers.render(task.claim, sandbox=self._renderer.sandbox)
        order = Order(
            noun="render",
            attempt_id=task.attempt.id,
            price=self._renderer.price(task.claim.output("voiceover", VoiceoverOutput).seconds),
            spent=task.claim.spent,
            budget=task.video.channel.budget_usd,
            job=lambda: self._job(task),
            accept=self._accept,
        )
        render = await publication.pay(self._renderer, order, journal, waits=self._waits, clock=self._clock)
        master = render.result
        output = RenderedVideoOutput(
            video=master.video,
            thumbnail=master.thumbnail,
            probe=master.probe,
            renderer=self._renderer.provider,
            render_id=render.remote_id,
            not_shown=await self._not_shown(task),
            words=(words := self._words(task)),
            content_sha256=content_hash(task.claim.output("script", ScriptOutput).script, master.video, words),
            named=bool(shown_name(task.video)),
        )
        return StageResult(output, render.cost, render.remote_id, self._renderer.provider)

    async def _accept(self, fetch: Fetch, cost: Decimal) -> _Master | WrittenOff:
        with scratch_file(self._media, ".mp4") as new_master, scratch_file(self._media, ".jpg") as new_still:
            master, still = new_master(), new_still()
            await fetch(master)
            probe = await self._looked_at(master)
            if probe.seconds < SHORTEST_SECONDS or probe.video_codec == "":
                message = f"the rendered file is unusable ({probe.seconds:.1f} s)"
                return WrittenOff(message, cost, Permanent(message, provider=self._renderer.provider))
            await self._studio.thumbnail(master, still)
            thumbnail = await self._media.add(still)
            return _Master(await self._media.add(master), thumbnail, probe)

    def _words(self, task: StageTask) -> tuple[PostWords, ...]:
        """The words that the posts would have now. The reviewer sees them with the master."""
        script = task.claim.output("script", ScriptOutput).script
        return post_words(script, task.video.channel, task.video.brief.platforms, self._privacy)

    async def _not_shown(self, task: StageTask) -> tuple[str, ...]:
        """The characters in the picture that no font has. They are left out and reported, never drawn as boxes."""
        script = task.claim.output("script", ScriptOutput).script
        spoken = task.claim.output("voiceover", VoiceoverOutput).sentences
        texts = [shown_name(task.video), script.title, *(scene.on_screen_text for scene in script.scenes)]
        texts += [sentence.text for sentence in spoken]
        language = task.video.channel.language
        return await self._studio.missing_glyphs([*texts, *(capitals(text, language) for text in texts)])

    async def _looked_at(self, master: Path) -> Probe:
        """Probe the downloaded file.

        An unreadable file is a failed download, such as a proxy's page: the paid render still exists.
        """
        try:
            return await self._studio.probe(master, loudness=True)
        except Permanent as error:
            message = f"the rendered file came down damaged: {error}"
            raise Transient(message, provider=self._renderer.provider, code="damaged", evidence=error.evidence) from error

    async def _job(self, task: StageTask) -> RenderJob:
        script = task.claim.output("script", ScriptOutput).script
        voiceover = task.claim.output("voiceover", VoiceoverOutput)
        gone = await self._not_shown(task)
        shown = [(sentence, without(sentence.text, gone)) for sentence in voiceover.sentences]
        return RenderJob(
            video_key=task.video.key,
            attempt_id=task.attempt.id,
            title=without(script.title, gone),
            hook=without(script.hook, gone),
            scene_titles=tuple(without(scene.on_screen_text, gone) for scene in script.scenes),
            sentences=tuple(sentence.model_copy(update={"text": text}) for sentence, text in shown if text),
            seconds=voiceover.seconds,
            audio=await self._media.local(voiceover.audio),
            palette=task.video.channel.palette,
            channel_title=without(shown_name(task.video), gone),
            language=task.video.channel.language,
        )


def shown_name(video: Video) -> str:
    """The channel name to show in the picture, or empty.

    Some platforms, such as TikTok, refuse videos with a burned-in name or logo. All platforms share one master, so a video for one
    of these platforms shows no name anywhere.
    """
    plain = any(not platform.spec.words.names_in_picture for platform in video.brief.platforms)
    return "" if plain else video.channel.title
