"""Stand-ins for the two local parts that cost whole CPU-seconds a video, so that a benchmark measures what it is about.

Only our own work is stood in for; other people's APIs are the sandbox over HTTP. The neural voice becomes a prepared sound of
the right length, and the studio remembers what it found out about a file: every film of the sandbox's fast renders has
the same bytes, so ffmpeg probes, measures and thumbnails them once a process instead of once a video.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import wave
from pathlib import Path

from phantoms_dagster.domain.models import Channel, MediaFile, Platform, Probe, Script, Sentence, VoiceoverOutput
from phantoms_dagster.domain.ports import MediaStore
from phantoms_dagster.media.studio import FfmpegStudio

SECONDS = 15.0
_RATE = 8_000


class PreparedVoice:
    """Implements `ports.Voice`: fifteen seconds of silence, made once, with times for the script's own sentences."""

    provider = "prepared"

    def __init__(self, store: MediaStore) -> None:
        self._store = store
        self._made: asyncio.Task[MediaFile] | None = None

    async def speak(self, script: Script, channel: Channel) -> VoiceoverOutput:
        """See the port."""
        if self._made is None:
            self._made = asyncio.get_running_loop().create_task(self._make())
        texts = [(-1, script.hook), *((n, scene.narration) for n, scene in enumerate(script.scenes))]
        length = SECONDS / len(texts)
        sentences = tuple(
            Sentence(text=text, scene=scene, start=n * length, end=(n + 1) * length) for n, (scene, text) in enumerate(texts)
        )
        audio = await asyncio.shield(self._made)
        return VoiceoverOutput(audio=audio, seconds=SECONDS, sentences=sentences, voice=f"prepared/{channel.voice}")

    async def _make(self) -> MediaFile:
        folder = self._store.scratch()
        try:
            path = folder / "voiceover.wav"
            with wave.open(str(path), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(_RATE)
                file.writeframes(bytes(2 * int(SECONDS * _RATE)))
            return await self._store.add(path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class RememberingStudio:
    """Implements `ports.Studio`: asks the real one once for each content, and remembers."""

    def __init__(self) -> None:
        self._real = FfmpegStudio()
        self._probes: dict[tuple[str, bool], Probe] = {}
        self._stills: dict[str, bytes] = {}
        self._kept: dict[tuple[str, Platform], bool] = {}

    async def probe(self, path: Path, *, loudness: bool = False) -> Probe:
        """See the port."""
        key = (_digest(path), loudness)
        if key not in self._probes:
            self._probes[key] = await self._real.probe(path, loudness=loudness)
        return self._probes[key]

    async def thumbnail(self, path: Path, destination: Path) -> None:
        """See the port."""
        key = _digest(path)
        if key not in self._stills:
            await self._real.thumbnail(path, destination)
            self._stills[key] = destination.read_bytes()
        destination.write_bytes(self._stills[key])

    async def fit(self, path: Path, platform: Platform, destination: Path) -> str:
        """See the port. Only `kept` is remembered: anything else writes a file of its own."""
        key = (_digest(path), platform)
        if self._kept.get(key):
            return "kept"
        how = await self._real.fit(path, platform, destination)
        self._kept[key] = how == "kept"
        return how


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
