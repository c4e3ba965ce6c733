"""Stand-ins for the two local parts that cost CPU-seconds for each video, so that a benchmark measures everything else.

Only our own work is replaced; providers are the sandbox over HTTP. The neural voice becomes a prepared sound of
the right length, and the studio remembers what it found out about a file: every video of the sandbox's fast renders has
the same bytes, so ffmpeg probes, measures and thumbnails them once a world instead of once a video.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import uuid
import wave
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from unittest import mock

from phantoms_dagster.domain.models import Channel, MediaFile, Platform, Probe, Script, Sentence, VoiceoverOutput
from phantoms_dagster.domain.ports import FitResult, MediaStore
from phantoms_dagster.media.studio import FfmpegStudio

SECONDS = 15.0
_RATE = 2_000  # bytes a second, too: a small file, as the videos are


class Memory:
    """Small values by name. They are also files in the world's data directory, because each run is a new process."""

    def __init__(self) -> None:
        home = os.environ.get("PHANTOMS_HOME")
        self._folder = Path(home) / "remembered" if home else None
        self._known: dict[str, bytes] = {}
        self._unknowable: set[str] = set()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def recall(self, name: str, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the stored value of that name. Without one, call `make` and store its result unless it is empty."""
        if (known := self._read(name)) is not None:
            return known
        if name in self._unknowable:
            return await make()
        async with self._locks[name]:
            if (known := self._read(name)) is not None:
                return known
            if name not in self._unknowable:
                if made := await make():
                    self._write(name, made)
                else:
                    self._unknowable.add(name)
                return made
        return await make()

    def _read(self, name: str) -> bytes | None:
        if name not in self._known and self._folder is not None and (path := self._folder / name).exists():
            self._known[name] = path.read_bytes()
        return self._known.get(name)

    def _write(self, name: str, value: bytes) -> None:
        self._known[name] = value
        if self._folder is not None:
            self._folder.mkdir(exist_ok=True)
            # Other processes see it whole or not at all.
            unfinished = self._folder / f".{uuid.uuid4().hex}"
            unfinished.write_bytes(value)
            unfinished.replace(self._folder / name)


class PreparedVoice:
    """Implements `ports.Voice`: fifteen seconds of silence, made once, with times for the script's own sentences."""

    provider = "prepared"

    def __init__(self, store: MediaStore) -> None:
        self._store = store
        self._memory = Memory()

    async def speak(self, script: Script, channel: Channel) -> VoiceoverOutput:
        """See the port."""
        texts = [(-1, script.hook), *((n, scene.narration) for n, scene in enumerate(script.scenes))]
        length = SECONDS / len(texts)
        sentences = tuple(
            Sentence(text=text, scene=scene, start=n * length, end=(n + 1) * length) for n, (scene, text) in enumerate(texts)
        )
        audio = MediaFile.model_validate_json(await self._memory.recall("voiceover", self._make))
        return VoiceoverOutput(audio=audio, seconds=SECONDS, sentences=sentences, voice=f"prepared/{channel.voice}")

    async def _make(self) -> bytes:
        folder = self._store.scratch()
        try:
            path = folder / "voiceover.wav"
            with wave.open(str(path), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(1)
                file.setframerate(_RATE)
                file.writeframes(b"\x80" * int(SECONDS * _RATE))
            return (await self._store.add(path)).model_dump_json().encode()
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class RememberingStudio:
    """Implements `ports.Studio`: uses the real one once for each content, and remembers the result."""

    def __init__(self) -> None:
        self._real = FfmpegStudio()
        self._memory = Memory()

    async def probe(self, path: Path, *, loudness: bool = False) -> Probe:
        """See the port."""

        async def ask() -> bytes:
            return (await self._real.probe(path, loudness=loudness)).model_dump_json().encode()

        name = f"{_digest(path)}-{'loudness' if loudness else 'probe'}"
        return Probe.model_validate_json(await self._memory.recall(name, ask))

    async def missing_glyphs(self, texts: Sequence[str]) -> tuple[str, ...]:
        """See the port."""
        return await self._real.missing_glyphs(texts)

    async def thumbnail(self, path: Path, destination: Path) -> None:
        """See the port."""

        async def ask() -> bytes:
            await self._real.thumbnail(path, destination)
            return destination.read_bytes()

        destination.write_bytes(await self._memory.recall(f"{_digest(path)}-still", ask))

    async def fit(
        self, path: Path, platform: Platform, destination: Callable[[], Path], *, known: Probe | None = None
    ) -> FitResult:
        """See the port. Only the result "kept" is remembered, because any other writes a new file."""
        made: list[FitResult] = []

        async def ask() -> bytes:
            made.append(await self._real.fit(path, platform, destination, known=known))
            return made[0].probe.model_dump_json().encode() if made[0].how == "kept" else b""

        kept = await self._memory.recall(f"{_digest(path)}-{platform}", ask)
        return made[0] if made else FitResult("kept", Probe.model_validate_json(kept))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def exchange_local_parts(*, studio: bool = True) -> None:
    """Let this process, and those that it forks, use the prepared voice and, with `studio`, the remembering studio."""
    mock.patch("phantoms_dagster.providers.hibari.adapters.NeuralVoice", PreparedVoice).start()
    if studio:
        mock.patch("phantoms_dagster.wiring.pipeline.FfmpegStudio", RememberingStudio).start()
