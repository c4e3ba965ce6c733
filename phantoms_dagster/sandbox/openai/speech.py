"""The stand-in for OpenAI's speech and moderations. Speech is a tone of the words' length, in the real formats.

Settings (`POST /_sandbox/config`): `openai.flagged_words`: texts that contain one of these words are flagged as violence.
"""

from __future__ import annotations

import asyncio
import io
import wave
from typing import Any

from aiohttp import web

from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster.sandbox.openai.gate import PREFIX, Endpoint, OpenAiApiError, digest, json_body, missing, wrong_type
from phantoms_dagster.sandbox.openai.models import model_named
from phantoms_dagster.sandbox.openai.request import check_choice

VOICES = ("alloy", "ash", "ballad", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer", "verse", "marin", "cedar")
# By format: the media type, and ffmpeg's names of container and codec.
FORMATS = {
    "mp3": ("audio/mpeg", "mp3", "libmp3lame"),
    "opus": ("audio/ogg", "ogg", "libopus"),
    "aac": ("audio/aac", "adts", "aac"),
    "flac": ("audio/flac", "flac", "flac"),
    "wav": ("audio/wav", "", ""),
    "pcm": ("audio/pcm", "", ""),
}
SAMPLE_RATE = 24_000
MAX_INPUT_CHARACTERS = 4_096
SECONDS_A_WORD = 0.4
_PARAMETERS = frozenset({"model", "input", "voice", "instructions", "response_format", "speed", "stream_format"})
_CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip


def routes(sandbox: Sandbox, endpoint: Endpoint) -> list[web.RouteDef]:
    """Routes `openai.speech` and `openai.moderations`."""

    async def speech(request: web.Request, _: str) -> web.StreamResponse:
        body = await json_body(request)
        text, kind, speed = _checked(body, sandbox.now())
        seconds = max(1, len(text.split())) * SECONDS_A_WORD / speed
        sound = await asyncio.to_thread(tone, seconds, kind)
        sandbox.record("speech", model=body["model"], characters=len(text), seconds=seconds)
        return web.Response(body=sound, content_type=FORMATS[kind][0])

    async def moderations(request: web.Request, _: str) -> dict[str, Any]:
        body = await json_body(request)
        if not isinstance(body, dict) or body.get("input") is None:
            raise missing("input")
        model = model_named(body.get("model", "omni-moderation-latest"), sandbox.now(), kind="moderation")
        given = body["input"]
        parts = [given] if isinstance(given, str) else given
        if not isinstance(parts, list) or not parts or not all(isinstance(part, str | dict) for part in parts):
            raise wrong_type("input", "one of a string, array of strings or array of objects", given)
        texts = [part if isinstance(part, str) else str(part.get("text", "")) for part in parts]
        if isinstance(parts[0], dict):
            texts = ["\n".join(texts)]  # parts of one message are judged together
        words = [str(word).casefold() for word in sandbox.setting("openai.flagged_words", [])]
        results = [_judged(any(word in text.casefold() for word in words)) for text in texts]
        return {"id": f"modr-{digest(sandbox.seed, *texts)[:29]}", "model": model.id, "results": results}

    return [
        web.post(f"{PREFIX}/audio/speech", endpoint(speech), name="openai.speech"),
        web.post(f"{PREFIX}/moderations", endpoint(moderations), name="openai.moderations"),
    ]


def tone(seconds: float, kind: str) -> bytes:
    """A tone of that length in that format: 24 kHz, mono, 16 bit."""
    import numpy as np  # noqa: PLC0415 - importing it takes a tenth of the sandbox's start, and few calls need it

    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    samples = (np.sin(2 * np.pi * 220 * times) * 8_000).astype("<i2")
    if kind == "pcm":
        return samples.tobytes()
    file = io.BytesIO()
    if kind == "wav":
        with wave.open(file, "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(SAMPLE_RATE)
            sound.writeframes(samples.tobytes())
        return file.getvalue()
    import av  # noqa: PLC0415 - it takes 16 MB, and few sandboxes encode speech

    _, container, codec = FORMATS[kind]
    with av.open(file, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        for given in (frame, None):
            output.mux(stream.encode(given))
    return file.getvalue()


def _checked(body: Any, now: float) -> tuple[str, str, float]:
    """The text, format and speed of a request. Raises OpenAiApiError."""
    if not isinstance(body, dict):
        raise OpenAiApiError(400, "We could not parse the JSON body of your request. The API expects a JSON payload.")
    if unknown := sorted(set(body) - _PARAMETERS):
        raise OpenAiApiError(400, f"Unknown parameter: '{unknown[0]}'.", param=unknown[0], code="unknown_parameter")
    for name in ("model", "input", "voice"):
        if body.get(name) is None:
            raise missing(name)
    model_named(body["model"], now, kind="speech")
    text, speed = body["input"], body.get("speed", 1.0)
    if not isinstance(text, str):
        raise wrong_type("input", "a string", text)
    if not 1 <= len(text) <= MAX_INPUT_CHARACTERS:
        text_length = f"Invalid 'input': expected a string with 1 to {MAX_INPUT_CHARACTERS} characters, but got {len(text)}."
        raise OpenAiApiError(400, text_length, param="input", code="string_above_max_length" if text else "string_below_min_length")
    if not isinstance(body["voice"], dict):
        check_choice("voice", body["voice"], VOICES)
    kind = body.get("response_format", "mp3")
    check_choice("response_format", kind, tuple(FORMATS))
    if isinstance(speed, bool) or not isinstance(speed, int | float):
        raise wrong_type("speed", "a decimal", speed)
    if not 0.25 <= speed <= 4:
        text_speed = f"Invalid 'speed': expected a value between 0.25 and 4, but got {speed}."
        raise OpenAiApiError(400, text_speed, param="speed", code="invalid_value")
    if body.get("stream_format", "audio") != "audio":
        text_stream = "Unsupported parameter: the sandbox has no 'stream_format' but 'audio'."
        raise OpenAiApiError(400, text_stream, param="stream_format", code="unsupported_parameter")
    return text, kind, float(speed)


def _judged(flagged: bool) -> dict[str, Any]:
    return {
        "flagged": flagged,
        "categories": {name: flagged and name == "violence" for name in _CATEGORIES},
        "category_scores": {name: 0.98 if flagged and name == "violence" else 0.0001 for name in _CATEGORIES},
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }
