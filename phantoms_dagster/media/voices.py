"""The voices that a channel may choose. Apart from `voice` because that module needs numpy and the model."""

from __future__ import annotations

from phantoms_dagster.domain.languages import primary
from phantoms_dagster.domain.models import Channel


def voices() -> list[str]:
    """The names of the voices. The first is the one that `default` means."""
    from hibari.voices import DEFAULT, VOICES  # noqa: PLC0415 - importing onnxruntime takes 0.2 s, and most processes never speak

    return [DEFAULT, *(name for name in VOICES if name != DEFAULT)]


def voice_problem(channel: Channel) -> tuple[str, str] | None:
    """The channel's setting that the local voice cannot handle, and what to do about it; None if it can speak the channel.

    Checked before anything is paid for the channel.
    """
    if channel.voice != "default" and channel.voice not in voices():
        return "voice", f"there is no voice {channel.voice!r}; the voices are default, {', '.join(voices())}"
    if primary(channel.language) != "en":
        return "language", f"the local voices speak only English, but language is {channel.language!r}; write `language: en`"
    return None
