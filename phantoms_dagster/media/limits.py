"""Decides how a file must be converted to meet a platform's limits. Pure: it reads and writes nothing.

The limits are in the platform's `rules`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from phantoms_dagster.domain.models import Platform, Probe
from phantoms_dagster.registry.media import MediaLimits

EDIT_LIST = "edit list"  # one of a verdict's reasons


class Conversion(IntEnum):
    """How to convert a file, from the least work to the most."""

    KEEP = 0
    REMUX = 1
    TRANSCODE_AUDIO = 2
    TRANSCODE = 3


@dataclass(frozen=True)
class FitVerdict:
    """The smallest sufficient conversion, and the reasons. `impossible`: what no conversion can fix."""

    conversion: Conversion
    reasons: tuple[str, ...] = ()
    impossible: str | None = None


def judge_fit(probe: Probe, platform: Platform, *, edited: bool, interlaced: bool) -> FitVerdict:
    """Judge how `probe` meets the platform's limits. `edited`: the file has an edit list that cuts or delays."""
    limits, name = platform.spec.media, platform.title
    shortest, longest = limits.seconds
    if probe.seconds > longest:
        return FitVerdict(Conversion.KEEP, impossible=f"{name} accepts at most {longest:g} s, this video has {probe.seconds:.1f} s")
    if probe.seconds < shortest:
        return FitVerdict(
            Conversion.KEEP, impossible=f"{name} accepts no video shorter than {shortest:g} s, this one has {probe.seconds:.1f} s"
        )
    found = [
        *((Conversion.TRANSCODE, reason) for reason in _picture(probe, limits, interlaced=interlaced)),
        *((Conversion.TRANSCODE_AUDIO, reason) for reason in _sound(probe, limits)),
        *((Conversion.REMUX, reason) for reason in _container(probe, limits, edited=edited)),
    ]
    return FitVerdict(max((work for work, _ in found), default=Conversion.KEEP), tuple(reason for _, reason in found))


def _picture(probe: Probe, limits: MediaLimits, *, interlaced: bool) -> list[str]:
    smallest, largest = limits.sides
    ratio = probe.width / probe.height
    sides_fit = smallest <= min(probe.width, probe.height) and max(probe.width, probe.height) <= largest
    rules = {
        f"video codec {probe.video_codec}": probe.video_codec in limits.video_codecs,
        f"pixel format {probe.pixel_format}": probe.pixel_format in ("yuv420p", "yuvj420p"),
        "interlaced": not interlaced,
        f"{probe.fps:g} fps": limits.fps[0] <= probe.fps <= limits.fps[1] + 0.01,
        f"{probe.width}x{probe.height}": sides_fit and probe.width <= limits.widest,
        f"aspect ratio {ratio:.3f}": limits.ratios[0] <= ratio <= limits.ratios[1],
        f"{probe.size} bytes": probe.size <= limits.size,
        f"{probe.bit_rate} bit/s": limits.bit_rate is None or probe.bit_rate <= limits.bit_rate,
    }
    return [reason for reason, kept in rules.items() if not kept]


def _sound(probe: Probe, limits: MediaLimits) -> list[str]:
    if probe.audio_codec is None:
        return []
    rules = {
        f"audio codec {probe.audio_codec}": probe.audio_codec in limits.audio_codecs,
        f"{probe.audio_hz} Hz": (probe.audio_hz or 0) <= limits.audio_hz,
        f"{probe.audio_channels} channels": (probe.audio_channels or 0) <= 2,
    }
    return [reason for reason, kept in rules.items() if not kept]


def _container(probe: Probe, limits: MediaLimits, *, edited: bool) -> list[str]:
    rules = {
        f"container {probe.container}": probe.container in limits.containers,
        "moov behind the media": probe.moov_first or not limits.moov_first or probe.container not in ("mp4", "mov"),
        EDIT_LIST: limits.edit_lists or not edited,
    }
    return [reason for reason, kept in rules.items() if not kept]
