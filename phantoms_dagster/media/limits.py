"""What each platform accepts, in one table, and how far a file is from it. Nothing is read or written here.

Sources: YouTube Help "Understand three-minute YouTube Shorts" and "Recommended upload encoding settings"; TikTok for
Developers "Media transfer guide"; Meta for Developers, IG User media, "Reel specifications".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

from phantoms_dagster.domain.models import Platform, Probe


@dataclass(frozen=True)
class Limits:
    """Seconds, bytes, pixels, frames a second, bits a second. `None`: no limit. `ratios`: width by height."""

    containers: frozenset[str]
    video_codecs: frozenset[str]
    audio_codecs: frozenset[str]
    seconds: tuple[float, float]
    size: int
    fps: tuple[float, float] = (1, 60)
    sides: tuple[int, int] = (2, 4096)
    widest: int = 4096
    ratios: tuple[float, float] = (0.01, 10.0)
    bit_rate: int | None = None
    audio_hz: int = 96_000
    moov_first: bool = False
    edit_lists: bool = True


LIMITS: Mapping[Platform, Limits] = MappingProxyType(
    {
        # Upright or square and at most three minutes: only then it becomes a Short.
        Platform.YOUTUBE: Limits(
            containers=frozenset({"mp4", "mov", "webm"}),
            video_codecs=frozenset({"h264", "hevc", "vp9", "av1", "vp8"}),
            audio_codecs=frozenset({"aac", "mp3", "opus", "vorbis"}),
            seconds=(0.1, 180),
            size=256 << 30,
            ratios=(0.01, 1.0),
            moov_first=True,
        ),
        # Every creator may post three minutes, some ten: the publisher asks for the creator's own maximum.
        Platform.TIKTOK: Limits(
            containers=frozenset({"mp4", "mov", "webm"}),
            video_codecs=frozenset({"h264", "hevc", "vp8", "vp9"}),
            audio_codecs=frozenset({"aac", "mp3", "opus", "vorbis"}),
            seconds=(0.1, 600),
            size=4 << 30,
            fps=(23, 60),
            sides=(360, 4096),
        ),
        Platform.INSTAGRAM: Limits(
            containers=frozenset({"mp4", "mov"}),
            video_codecs=frozenset({"h264", "hevc"}),
            audio_codecs=frozenset({"aac"}),
            seconds=(3, 900),
            size=300_000_000,
            fps=(23, 60),
            widest=1920,
            bit_rate=25_000_000,
            audio_hz=48_000,
            moov_first=True,
            edit_lists=False,
        ),
    }
)


EDIT_LIST = "edit list"  # a reason of a verdict


class Work(IntEnum):
    """What must be done to a file, the least first."""

    KEEP = 0
    REMUX = 1
    TRANSCODE_AUDIO = 2
    TRANSCODE = 3


@dataclass(frozen=True)
class Verdict:
    """The work and why. `impossible` says what no work can mend."""

    work: Work
    reasons: tuple[str, ...] = ()
    impossible: str | None = None


def judge(probe: Probe, platform: Platform, *, edited: bool, interlaced: bool) -> Verdict:
    """How `probe` fits the platform. `edited`: it has an edit list that cuts or delays."""
    limits, name = LIMITS[platform], platform.title
    shortest, longest = limits.seconds
    if probe.seconds > longest:
        return Verdict(Work.KEEP, impossible=f"{name} takes at most {longest:g} s, this video has {probe.seconds:.1f} s")
    if probe.seconds < shortest:
        return Verdict(Work.KEEP, impossible=f"{name} takes no video below {shortest:g} s, this one has {probe.seconds:.1f} s")
    found = [
        *((Work.TRANSCODE, reason) for reason in _picture(probe, limits, interlaced=interlaced)),
        *((Work.TRANSCODE_AUDIO, reason) for reason in _sound(probe, limits)),
        *((Work.REMUX, reason) for reason in _container(probe, limits, edited=edited)),
    ]
    return Verdict(max((work for work, _ in found), default=Work.KEEP), tuple(reason for _, reason in found))


def _picture(probe: Probe, limits: Limits, *, interlaced: bool) -> list[str]:
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


def _sound(probe: Probe, limits: Limits) -> list[str]:
    if probe.audio_codec is None:
        return []
    rules = {
        f"audio codec {probe.audio_codec}": probe.audio_codec in limits.audio_codecs,
        f"{probe.audio_hz} Hz": (probe.audio_hz or 0) <= limits.audio_hz,
        f"{probe.audio_channels} channels": (probe.audio_channels or 0) <= 2,
    }
    return [reason for reason, kept in rules.items() if not kept]


def _container(probe: Probe, limits: Limits, *, edited: bool) -> list[str]:
    rules = {
        f"container {probe.container}": probe.container in limits.containers,
        "moov behind the media": probe.moov_first or not limits.moov_first or probe.container not in ("mp4", "mov"),
        EDIT_LIST: limits.edit_lists or not edited,
    }
    return [reason for reason, kept in rules.items() if not kept]
