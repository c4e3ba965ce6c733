"""Which voices a channel may ask for. `voice` speaks; that needs numpy and the model, and this does not."""

from __future__ import annotations

from phantoms_dagster.domain.languages import primary
from phantoms_dagster.domain.models import Channel


def voices() -> list[str]:
    """The names of the voices that a channel may ask for; `default` is the first."""
    from hibari.voices import DEFAULT, VOICES  # noqa: PLC0415 - onnxruntime and its tables cost 0.2 s, most processes never speak

    return [DEFAULT, *(name for name in VOICES if name != DEFAULT)]


def voice_problem(channel: Channel) -> tuple[str, str] | None:
    """The key that keeps this channel from being spoken here, and why, with the way out; None when nothing does.

    It is asked before anything is paid for the channel.
    """
    if channel.voice != "default" and channel.voice not in voices():
        return "voice", f"there is no voice {channel.voice!r}; the voices are default, {', '.join(voices())}"
    if primary(channel.language) != "en":
        return "language", f"the local voices speak English only, and language is {channel.language!r}; write `language: en`"
    return None
