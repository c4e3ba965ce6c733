"""Renders on this machine with ffmpeg, at no cost. `cards`, `captions` and `graph` define the look."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
import uuid
import wave
import weakref
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from phantoms_dagster.domain.errors import NotYet, Permanent, ProviderError
from phantoms_dagster.domain.paid_job import AboutToBill, JobStatus, NotBilled
from phantoms_dagster.domain.ports import RenderJob
from phantoms_dagster.domain.publication import Found, RemoteId
from phantoms_dagster.media import cards, ffmpeg, graph, waveform
from phantoms_dagster.media.fonts import load_fonts, private_folder

_BANDS = 12
_ATTEMPT_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_KEEP_SECONDS = 2 * 86_400


async def render(
    job: RenderJob, destination: Path, *, fonts: Path | None = None, progress: Callable[[float], None] | None = None
) -> None:
    """Render the master of `job`: 1080x1920, 30 fps, H.264 High, AAC 48 kHz stereo, -14 LUFS, moov first.

    `destination` is written completely or not at all; its folder must exist. `fonts` is a folder for prepared fonts that later
    processes reuse. `progress` is called with the share of the video that is written, 0..1. Raises Permanent for sound or words
    that cannot be rendered, Transient when the machine is at fault.
    """
    work = destination.parent / f".{destination.name}.{uuid.uuid4().hex[:8]}"
    work.mkdir()
    try:
        await asyncio.to_thread(_prepare, job, work, fonts or private_folder())
        gain = await ffmpeg.voice_gain(job.audio)
        await ffmpeg.run(
            [
                *("-filter_threads", "1", "-i", str(job.audio.absolute())),
                *("-filter_complex", _graph(job, gain), "-map", "[v]", "-map", "[a]", "-threads", str(ffmpeg.THREADS)),
                *graph.VIDEO_CODEC,
                *graph.AUDIO_CODEC,
                *graph.MP4,
                "master.mp4",
            ],
            cwd=work,
            progress=None if progress is None else lambda seconds: progress(min(1.0, seconds / job.seconds)),
        )
        (work / "master.mp4").replace(destination)
    finally:
        shutil.rmtree(work, ignore_errors=True)


class LocalRenderer:
    """Implements `ports.Renderer` with ffmpeg. Its only state is the finished renders, files named by their attempt.

    `work_dir` holds finished renders for two days, and the prepared fonts. `in_flight` limits concurrent renders.
    """

    provider = "local"
    sandbox = False
    at_once = True

    def __init__(self, work_dir: Path, *, in_flight: int = 1) -> None:
        self._renders = work_dir / "renders"
        self._fonts = work_dir / "fonts"
        self._in_flight = in_flight
        # Each Dagster run may have its own event loop, and a semaphore works in one loop only.
        self._slots: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = weakref.WeakKeyDictionary()

    async def submit(self, job: RenderJob, about_to_bill: AboutToBill) -> RemoteId | NotBilled:
        """Render, and return the attempt's id when done. A second call for the same attempt renders nothing."""
        path = self._path(job.attempt_id)
        self._renders.mkdir(parents=True, exist_ok=True)
        self._forget_old()
        slots = self._slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self._in_flight))
        async with slots:
            await about_to_bill()  # nothing is billed, but every renderer calls this first
            try:
                if not path.exists():  # another submit of this attempt may have finished
                    await render(job, path, fonts=self._fonts)
            except (ProviderError, NotYet) as error:
                return NotBilled(f"the render on this machine failed: {error}", error=error)
        return RemoteId(job.attempt_id)

    def price(self, seconds: float) -> Decimal:  # noqa: ARG002 - the port's
        """Always 0."""
        return Decimal(0)

    async def status(self, render_id: str) -> JobStatus:
        """`done` if the file exists, else `failed`: nothing renders in the background."""
        path = self._path(render_id)
        if path.exists():
            return JobStatus("done", progress=1.0, url=path.absolute().as_uri(), cost=Decimal(0))
        return JobStatus("failed", error=f"no finished render {render_id} on this machine", cost=Decimal(0))

    async def find(self, attempt_id: str) -> Found | NotBilled:
        """The attempt's id if its render is finished on this machine, else NotBilled."""
        if self._path(attempt_id).exists():
            return Found(RemoteId(attempt_id))
        return NotBilled(f"no finished render {attempt_id} on this machine")

    async def fetch(self, render_id: str, destination: Path, *, url: str | None = None) -> None:  # noqa: ARG002 - the port's
        """Copy the finished file. Raises Permanent when there is none."""
        path = self._path(render_id)
        temporary = destination.with_name(f".{destination.name}.{uuid.uuid4().hex[:8]}")
        try:
            await asyncio.to_thread(shutil.copyfile, path, temporary)
            temporary.replace(destination)
        except FileNotFoundError:
            if path.exists():
                raise  # the destination's folder is missing, which is the caller's mistake
            raise Permanent(f"no finished render {render_id} on this machine", provider=self.provider, code="gone") from None
        finally:
            temporary.unlink(missing_ok=True)

    def _path(self, render_id: str) -> Path:
        if not _ATTEMPT_ID.fullmatch(render_id):
            raise Permanent(f"{render_id!r} cannot name a render", provider=self.provider, code="bad id")
        return self._renders / f"{render_id}.mp4"

    def _forget_old(self) -> None:
        """Remove renders that were fetched long ago, and what killed processes left behind."""
        oldest = time.time() - _KEEP_SECONDS
        for path in self._renders.iterdir():
            try:
                if path.stat().st_mtime < oldest:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            except FileNotFoundError:
                continue  # another process was faster


def _prepare(job: RenderJob, work: Path, fonts_folder: Path) -> None:
    """Write the captions and link the fonts next to them, so that the filter graph needs no paths with escapes."""
    try:
        samples, rate = waveform.read_wav(job.audio)
    except (OSError, EOFError, ValueError, wave.Error) as error:
        raise Permanent(f"the voiceover cannot be read: {error}", provider=ffmpeg.PROVIDER, code="unreadable media") from error
    fonts = load_fonts(fonts_folder)
    levels = waveform.band_levels(samples, rate, job.seconds, _BANDS)
    document = cards.screenplay(job, levels, fonts)
    (work / "captions.ass").write_text(document, encoding="utf-8")
    (work / "fonts").mkdir()
    for face in fonts.named_in(document):
        (work / "fonts" / face.path.name).symlink_to(face.path.absolute())


def _graph(job: RenderJob, gain: float) -> str:
    picture = graph.picture(job.palette, "captions.ass", "fonts", job.seconds)
    return f"{picture}[v];[0:a]{graph.voice(gain, job.seconds)}[a]"
