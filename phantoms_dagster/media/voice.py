"""The neural voice: speaks scripts on this machine, one sentence at a time so that the times are exact.

`graph` handles loudness and encoding.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import threading
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import regex
from numpy.typing import NDArray

from phantoms_dagster.domain.errors import Permanent, Transient
from phantoms_dagster.domain.markup import one_line
from phantoms_dagster.domain.models import Channel, Script, Sentence, VoiceoverOutput
from phantoms_dagster.domain.ports import MediaStore
from phantoms_dagster.domain.sentences import split
from phantoms_dagster.domain.text import speakable
from phantoms_dagster.media.voices import voice_problem, voices

if TYPE_CHECKING:
    from hibari import Hibari

RATE = 24_000
LEAD_IN_SECONDS = 0.20
SENTENCE_PAUSE_SECONDS = 0.17
SCENE_PAUSE_SECONDS = 0.36
TAIL_SECONDS = 0.80

_SEED = 7
_AUDIBLE = 0.008  # of full scale: the model leaves 0.3 s of near silence before and 0.5 s after each sentence
_KEEP_BEFORE, _KEEP_BEHIND, _FADE = int(0.03 * RATE), int(0.09 * RATE), int(0.008 * RATE)

# How long a sentence without sound is shown, so that viewers can read it.
SILENT_SECONDS, SILENT_SECONDS_A_LETTER, SILENT_SECONDS_AT_MOST = 0.8, 0.06, 4.0
_OTHER_SCRIPT = regex.compile(r"[\p{L}--\p{Latin}]", regex.V1)
_NO_SOUND = " .,;:!?…—-\"'()“”‘’"  # noqa: RUF001  quotes of all kinds

Sound = NDArray[np.float32]


@dataclass(frozen=True)
class _Spoken:
    scene: int
    text: str
    sound: Sound
    heard: bool


class NeuralVoice:
    """Implements `ports.Voice`. The same script and voice give the same bytes."""

    provider = "hibari"

    def __init__(self, store: MediaStore) -> None:
        self._store = store

    async def speak(self, script: Script, channel: Channel) -> VoiceoverOutput:
        """Speak a script and store its WAV (24 kHz, mono, 16 bit) in the media store.

        Raises Permanent for an unknown voice, a language other than English or a script without a speakable word, and Transient
        when a voice that is not in the package cannot be downloaded now.
        """
        name = _voice_name(channel)
        stopped = threading.Event()
        folder = self._store.scratch()
        try:
            path = folder / "voiceover.wav"
            try:
                future = _thread(os.getpid()).submit(_speak, script, channel.language, name, path, stopped)
                seconds, sentences, unspoken = await asyncio.wrap_future(future)
            finally:
                stopped.set()  # on cancellation, the thread stops after its current sentence
            audio = await self._store.add(path)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        return VoiceoverOutput(audio=audio, seconds=seconds, sentences=sentences, voice=f"hibari/{name}", unspoken=unspoken)


def _voice_name(channel: Channel) -> str:
    problem = voice_problem(channel)
    if problem is not None:
        raise Permanent(f"channel {channel.name!r}: {problem[1]}", provider=NeuralVoice.provider, code="unknown voice")
    return voices()[0] if channel.voice == "default" else channel.voice


# One thread per process: the model is loaded once, callers queue up in order, and the event loop stays free. The process id is
# the key because a thread does not survive a fork.
@functools.lru_cache(maxsize=1)
def _thread(_process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="voice")


@functools.lru_cache(maxsize=2)
def _model(name: str) -> Hibari:
    from hibari import Hibari  # noqa: PLC0415 - see `voices.voices`

    try:
        model = Hibari(voice=name)
    except RuntimeError as error:  # what hibari raises when a download fails
        raise Transient(
            f"the voice {name!r} could not be downloaded: {error}", provider=NeuralVoice.provider, code="download"
        ) from error
    # Each text is already one sentence. The model's own splitter would pause in the middle of "No. 5".
    model.split_sentences = lambda text: [text]
    return model


def _speak(
    script: Script, language: str, name: str, path: Path, stopped: threading.Event
) -> tuple[float, tuple[Sentence, ...], tuple[str, ...]]:
    """Write the WAV. Returns its length in seconds, its sentences and the words not spoken. Runs in the voice's thread."""
    model = _model(name)
    spoken = list(_sentences(script, language, model, stopped))
    if not any(part.heard for part in spoken):
        raise Permanent("the script has no word that can be spoken", provider=NeuralVoice.provider, code="nothing to say")
    pieces, sentences = [_silence(LEAD_IN_SECONDS)], []
    at = len(pieces[0])
    for index, part in enumerate(spoken):
        if index:
            same = part.scene == spoken[index - 1].scene
            pause = _silence(SENTENCE_PAUSE_SECONDS if same else SCENE_PAUSE_SECONDS)
            pieces.append(pause)
            at += len(pause)
        pieces.append(part.sound)
        end = at + len(part.sound)
        sentences.append(Sentence(text=part.text, scene=part.scene, start=at / RATE, end=end / RATE))
        at = end
    pieces.append(_silence(TAIL_SECONDS))
    samples = np.concatenate(pieces)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    unspoken = [missing for part in spoken for missing in _missing(part, model)]
    return len(samples) / RATE, tuple(sentences), tuple(dict.fromkeys(unspoken))


def _sentences(script: Script, language: str, model: Hibari, stopped: threading.Event) -> Iterator[_Spoken]:
    """Each sentence with its sound. One that the voice cannot speak is shown in silence, so that no part of a script is lost."""
    texts = [(-1, script.hook), *((i, scene.narration) for i, scene in enumerate(script.scenes))]
    for scene, text in texts:
        for sentence in split(one_line(text), language):
            if stopped.is_set():
                return
            sound = _trimmed(model(_read_aloud(sentence), seed=_SEED)) if speakable(sentence) else _silence(0)
            heard = len(sound) > 0
            shown = SILENT_SECONDS + SILENT_SECONDS_A_LETTER * len(sentence)
            yield _Spoken(scene, sentence, sound if heard else _silence(min(shown, SILENT_SECONDS_AT_MOST)), heard)


def _read_aloud(sentence: str) -> str:
    """The sentence as the voice should read it: an asterisk between numbers becomes "times"."""
    return regex.sub(r"(?<=\p{N})\s*[*×]\s*(?=\p{N})", " times ", sentence)  # noqa: RUF001  the sign of multiplication


def _missing(part: _Spoken, model: Hibari) -> Iterator[str]:
    """The whole sentence if it is silent, else its words in other scripts that the voice skips."""
    if not part.heard:
        yield part.text
        return
    for word in part.text.split():
        if _OTHER_SCRIPT.search(word) and not model.g2p(word).strip(_NO_SOUND):
            yield word


def _trimmed(sound: Sound) -> Sound:
    """The audible part, with a short margin on either side and faded ends to avoid clicks."""
    audible = np.flatnonzero(np.abs(sound) > _AUDIBLE)
    if not len(audible):
        return sound[:0]
    cut = sound[max(0, audible[0] - _KEEP_BEFORE) : audible[-1] + _KEEP_BEHIND].copy()
    ramp = np.linspace(0, 1, min(_FADE, len(cut)), dtype=np.float32)
    cut[: len(ramp)] *= ramp
    cut[len(cut) - len(ramp) :] *= ramp[::-1]
    return cut


def _silence(seconds: float) -> Sound:
    return np.zeros(round(seconds * RATE), dtype=np.float32)
