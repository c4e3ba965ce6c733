"""The render API stand-in's state and background work: sources, renders, and rendering."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import json
import re
import shutil
import tempfile
import uuid
import wave
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import imageio_ffmpeg

from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster.sandbox.pace import wait_seconds
from phantoms_dagster.sandbox.shotstack.schema import audio_sources, seconds_of

Progress = Callable[[float], None]
# Makes the MP4 of an Edit: `await render(edit, audio, destination, progress)`. `audio` is the uploaded voiceover; `progress` is
# called with the rendered share, 0..1.
Render = Callable[[dict[str, Any], Path | None, Path, Progress], Awaitable[None]]

UPLOAD_SECONDS = 3600.0  # a signed URL is valid for an hour
URL_SECONDS = 24 * 3600.0  # how long the temporary URL of a finished file is valid
KEPT_SECONDS = 72 * 3600.0  # then this stand-in deletes the file; the real service keeps hosted copies
STOCK_SECONDS = 16  # long enough for every platform
GROUP_SECONDS = 2  # the length of the group of pictures that is repeated
STOCK = "stock.mp4"
_SOURCE_ID = re.compile(r"/sources/[0-9a-f]+/([0-9a-f-]{36})/")


@dataclass
class SandboxSource:
    """An uploaded file. `path` is None until the bytes have arrived, or if no render will read them."""

    id: str
    owner: str
    stage: str
    created: float
    processing: float
    received: float | None = None
    path: Path | None = None
    suffix: str = ""
    seconds: float | None = None
    size: int = 0
    sha256: str = ""
    error: str | None = None

    def status(self, now: float) -> str:
        """`queued`, `importing`, `ready` or `failed`."""
        if self.received is None:
            return "queued"
        if now < self.received + self.processing:
            return "importing"
        return "failed" if self.error else "ready"


@dataclass
class RenderTask:
    """An accepted render. `file` is set once the video is made."""

    id: str
    owner: str
    stage: str
    edit: dict[str, Any]
    seconds: float
    created: float
    processing: float
    waiting: bool = True
    file: Path | None = None
    error: str | None = None
    finished: float | None = None

    def status(self, now: float) -> str:
        """Its status: `queued -> fetching -> rendering -> saving -> done`, or `failed`.

        It is done after at least `processing` seconds, and not before the file is made.
        """
        share = 1.0 if self.processing <= 0 else (now - self.created) / self.processing
        if self.error is not None:
            return "failed"
        if self.file is not None and share >= 1:
            return "done"
        if share < 0.15 or (self.file is None and self.waiting):
            return "queued"
        if share < 0.3:
            return "fetching"
        return "rendering" if self.file is None or share < 0.85 else "saving"


@dataclass
class ShotstackStudio:
    """All sources and renders, and the background tasks that make the files, in their own folder."""

    sandbox: Sandbox
    render: Render | None
    folder: Path | None
    owns_folder: bool = False
    sources: dict[str, SandboxSource] = field(default_factory=dict)
    renders: dict[str, RenderTask] = field(default_factory=dict)
    windows: dict[tuple[str, int], int] = field(default_factory=dict)
    minutes_spent: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)  # the rendered share of each video in progress, 0..1
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _running: int = 0
    _swept: float = 0.0
    _turn: asyncio.Condition = field(default_factory=asyncio.Condition)
    _stock: Path | None = None
    _stock_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        for source in self.sandbox.kept("shotstack.source", SandboxSource):
            self.sources[source.id] = source
            source.path = source.path and self.place(source.path.name)
        for job in self.sandbox.kept("shotstack.render", RenderTask):
            self.renders[job.id] = job
            job.file = job.file and self.place(job.file.name)
            if job.file is not None and job.file.name == STOCK and job.file.exists():
                self._stock = job.file
        self.minutes_spent = dict(self.sandbox.kept_rows("shotstack.minutes")).get("spent", 0.0)
        if self.sandbox.store is not None:
            self._remove_strays()

    def _remove_strays(self) -> None:
        """Remove files that a killed process left incomplete, or that no row refers to."""
        kept = {thing.path for thing in self.sources.values()} | {job.file for job in self.renders.values()}
        for path in self.folder.iterdir() if self.folder is not None and self.folder.exists() else ():
            if path.is_file() and path not in kept:
                path.unlink(missing_ok=True)

    def resume(self) -> None:
        """Start the unfinished renders of an earlier process again from the beginning. Needs a running event loop."""
        for job in self.renders.values():
            if job.finished is None:
                job.waiting = True
                self._begin(job)

    def _begin(self, job: RenderTask) -> None:
        task = asyncio.create_task(self._carry_out(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def place(self, name: str) -> Path:
        """A path in this stand-in's folder, which is created on first use."""
        if self.folder is None:
            self.folder, self.owns_folder = Path(tempfile.mkdtemp(prefix="phantoms-shotstack-")), True
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / name

    def signature(self, source: SandboxSource, expires: int) -> str:
        """The signature of an upload URL."""
        key = f"shotstack-{self.sandbox.seed}".encode()
        return hmac.new(key, f"PUT {source.id} {expires}".encode(), hashlib.sha256).hexdigest()

    def new_source(self, owner: str, stage: str) -> SandboxSource:
        """Create a source whose bytes have not arrived yet."""
        processing = wait_seconds(self.sandbox, "shotstack.ingest_seconds", str(len(self.sources) + 1))
        source = SandboxSource(str(uuid.uuid4()), owner, stage, self.sandbox.now(), processing)
        self.sources[source.id] = source
        self.sandbox.keep("shotstack.source", source.id, source)
        return source

    def received(self, source: SandboxSource, body: bytes) -> None:
        """Receive the bytes of a source. They are stored in a file only if a real render will read them."""
        source.sha256 = hashlib.sha256(body).hexdigest()
        source.size = len(body)
        source.suffix, source.seconds, source.error = _looked_at(body)
        if self.render is not None and not source.error:
            upload, path = self.place(f"{source.id}.{uuid.uuid4().hex}.upload"), self.place(f"{source.id}{source.suffix}")
            try:
                upload.write_bytes(body)
                source.path = upload.replace(path)
            finally:
                upload.unlink(missing_ok=True)
        source.received = self.sandbox.now()
        self.sandbox.keep("shotstack.source", source.id, source)

    def accept(self, owner: str, stage: str, edit: dict[str, Any]) -> RenderTask:
        """Queue a render. The file is made in the background."""
        processing = wait_seconds(self.sandbox, "shotstack.processing_seconds", str(len(self.renders) + 1))
        job = RenderTask(str(uuid.uuid4()), owner, stage, edit, seconds_of(edit), self.sandbox.now(), processing)
        self.renders[job.id] = job
        self.minutes_spent += job.seconds / 60
        self.sandbox.keep("shotstack.render", job.id, job)
        self.sandbox.keep("shotstack.minutes", "spent", self.minutes_spent)
        self._forget_old_files()
        self._begin(job)
        return job

    async def close(self) -> None:
        """Stop all renders, and remove the folder if it is a temporary one."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.owns_folder and self.folder is not None:
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)
            self.folder, self.owns_folder, self._stock = None, False, None

    async def _carry_out(self, job: RenderTask) -> None:
        try:
            audio = self._fetched(job)
            job.file = await (self._rendered(job, audio) if self.render is not None else self._stock_video(job))
        except Exception as error:  # noqa: BLE001 - the API would report any error of a renderer as `failed`
            job.error = str(error) or type(error).__name__
        job.finished = self.sandbox.now()
        self.sandbox.keep("shotstack.render", job.id, job)
        self.sandbox.save()
        self._call_back(job)

    def _call_back(self, job: RenderTask) -> None:
        """Send the two events of a render to the address in its Edit, unsigned."""
        url = job.edit.get("callback")
        if not url:
            return
        at = max(job.finished or 0.0, job.created + job.processing)
        status = "failed" if job.error is not None else "done"
        told = {"owner": job.owner, "error": job.error, "completed": datetime.fromtimestamp(at, UTC).isoformat()}
        events = [{"type": "edit", "action": "render", "id": job.id, "status": status, **told}]
        if job.error is None:
            asset = str(uuid.uuid5(uuid.NAMESPACE_URL, job.id))
            events.append({"type": "serve", "action": "copy", "id": asset, "render": job.id, "status": "ready", **told})
        for event in events:
            self.sandbox.webhooks.send(str(url), json.dumps(event).encode(), dict, at=at)

    def _fetched(self, job: RenderTask) -> Path | None:
        """The path of the voiceover, which the service would download. Only files uploaded to this stand-in are available."""
        audio: Path | None = None
        for address in audio_sources(job.edit):
            found = _SOURCE_ID.search(address)
            source = self.sources.get(found[1]) if found else None
            if source is None or source.stage != job.stage or source.status(self.sandbox.now()) != "ready":
                raise LookupError(f"The asset could not be downloaded: {address}")
            if self.render is not None and (source.path is None or not source.path.exists()):
                raise LookupError(f"The asset is gone: {address}")
            audio = source.path
        return audio

    async def _rendered(self, job: RenderTask, audio: Path | None) -> Path:
        async with self._turn:
            while self._running >= int(self.sandbox.setting("shotstack.renders_in_flight", 1)):
                await self._turn.wait()
            self._running += 1
        job.waiting = False
        part, whole = self.place(f"{job.id}.part.mp4"), self.place(f"{job.id}.mp4")
        try:
            assert self.render is not None
            await self.render(job.edit, audio, part, lambda share: self.shares.update({job.id: share}))
            return part.replace(whole)
        finally:
            self.shares.pop(job.id, None)
            part.unlink(missing_ok=True)
            async with self._turn:
                self._running -= 1
                self._turn.notify()

    async def _stock_video(self, job: RenderTask) -> Path:
        """The same short video for every render, made once: for throughput tests, where the picture does not matter."""
        job.waiting = False
        if self._stock is None:
            async with self._stock_lock:
                self._stock = self._stock or await _make_stock_video(self.place(STOCK))
        return self._stock

    def _forget_old_files(self) -> None:
        """Delete files older than `KEPT_SECONDS`; their rows stay. Runs once an hour, because the lists grow long."""
        now = self.sandbox.now()
        if now < self._swept + 3600:
            return
        self._swept, limit = now, now - KEPT_SECONDS
        for source in self.sources.values():
            if source.path is not None and source.created < limit:
                source.path.unlink(missing_ok=True)
                source.path = None
        for job in self.renders.values():
            if job.file is not None and job.file != self._stock and job.created < limit:
                job.file.unlink(missing_ok=True)


def _looked_at(body: bytes) -> tuple[str, float | None, str | None]:
    """An uploaded sound's suffix, its length in seconds if the header has it, and what is wrong with it, if anything."""
    head = body[:12]
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        try:
            with wave.open(io.BytesIO(body), "rb") as sound:
                return ".wav", sound.getnframes() / sound.getframerate(), None
        except (wave.Error, EOFError, ZeroDivisionError) as error:
            return ".wav", None, f"The source file could not be read: {error}"
    if head[:3] == b"ID3" or head[:2] in (b"\xff\xfb", b"\xff\xf3"):
        return ".mp3", None, None
    if head[4:8] == b"ftyp":
        return ".mp4", None, None
    return "", None, "The source file is of an unsupported type"


async def _make_stock_video(destination: Path) -> Path:
    """Make a real MP4: 1080x1920 at 30 fps, one colour, with a silent AAC track.

    Its picture is one closed group of frames, encoded once and repeated. That takes a quarter of the CPU time of encoding all.
    """
    group = destination.with_suffix(".group.mp4")
    try:
        await _ffmpeg(
            *("-f", "lavfi", "-i", f"color=c=0x1d2b53:s=1080x1920:r=30:d={GROUP_SECONDS}"),
            *("-c:v", "libx264", "-preset", "ultrafast", "-profile:v", "high", "-pix_fmt", "yuv420p", "-g", "60", str(group)),
        )
        await _ffmpeg(
            *("-stream_loop", str(STOCK_SECONDS // GROUP_SECONDS - 1), "-i", str(group)),
            *("-f", "lavfi", "-i", f"anullsrc=r=44100:cl=stereo:d={STOCK_SECONDS}", "-map", "0:v", "-map", "1:a"),
            *("-c:v", "copy", "-c:a", "aac", "-b:a", "64k", "-movflags", "+faststart", str(destination)),
        )
    finally:
        group.unlink(missing_ok=True)
    return destination


async def _ffmpeg(*arguments: str) -> None:
    command = (imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-loglevel", "error", "-y", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        _, said = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise RuntimeError(f"ffmpeg ended with {process.returncode}: {said.decode(errors='replace')[-500:]}")
