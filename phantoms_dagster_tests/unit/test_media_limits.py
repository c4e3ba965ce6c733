"""What a platform accepts, and what to do about a file that does not fit."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from phantoms_dagster.domain.models import Platform, Probe
from phantoms_dagster.media.limits import Conversion, judge_fit
from phantoms_dagster.media.mp4 import read_boxes

MASTER = Probe(
    container="mp4",
    seconds=30.0,
    size=8_000_000,
    width=1080,
    height=1920,
    fps=30.0,
    video_codec="h264",
    video_profile="High",
    pixel_format="yuv420p",
    audio_codec="aac",
    audio_hz=48_000,
    audio_channels=2,
    bit_rate=2_200_000,
    moov_first=True,
)


@pytest.mark.parametrize("platform", Platform)
def test_a_master_is_kept_by_every_platform(platform: Platform) -> None:
    assert judge_fit(MASTER, platform, edited=False, interlaced=False).conversion is Conversion.KEEP


@pytest.mark.parametrize(
    ("platform", "change", "conversion"),
    [
        (Platform("instagram"), {"moov_first": False}, Conversion.REMUX),
        (Platform("youtube"), {"moov_first": False}, Conversion.REMUX),
        (Platform("tiktok"), {"moov_first": False}, Conversion.KEEP),
        (Platform("instagram"), {"container": "webm", "video_codec": "vp9", "audio_codec": "opus"}, Conversion.TRANSCODE),
        (Platform("tiktok"), {"container": "webm", "video_codec": "vp9", "audio_codec": "opus"}, Conversion.KEEP),
        (Platform("instagram"), {"container": "matroska"}, Conversion.REMUX),
        (Platform("instagram"), {"audio_codec": "mp3"}, Conversion.TRANSCODE_AUDIO),
        (Platform("instagram"), {"audio_hz": 96_000}, Conversion.TRANSCODE_AUDIO),
        (Platform("instagram"), {"audio_codec": None, "audio_hz": None, "audio_channels": None}, Conversion.KEEP),
        (Platform("instagram"), {"size": 300_000_001}, Conversion.TRANSCODE),
        (Platform("instagram"), {"bit_rate": 25_000_001}, Conversion.TRANSCODE),
        (Platform("instagram"), {"width": 2160, "height": 3840}, Conversion.TRANSCODE),
        (Platform("tiktok"), {"fps": 15.0}, Conversion.TRANSCODE),
        (Platform("tiktok"), {"width": 320, "height": 568}, Conversion.TRANSCODE),
        (Platform("youtube"), {"width": 1920, "height": 1080}, Conversion.TRANSCODE),
        (Platform("youtube"), {"pixel_format": "yuv444p"}, Conversion.TRANSCODE),
    ],
)
def test_the_least_work_that_is_enough_is_chosen(platform: Platform, change: dict[str, object], conversion: Conversion) -> None:
    verdict = judge_fit(MASTER.model_copy(update=change), platform, edited=False, interlaced=False)
    assert (verdict.conversion, verdict.impossible) == (conversion, None)
    assert bool(verdict.reasons) == (conversion is not Conversion.KEEP)


def test_an_edit_list_matters_to_instagram_alone() -> None:
    work = {platform: judge_fit(MASTER, platform, edited=True, interlaced=False).conversion for platform in Platform.usual()}
    assert work == {
        Platform("youtube"): Conversion.KEEP,
        Platform("tiktok"): Conversion.KEEP,
        Platform("instagram"): Conversion.REMUX,
    }


@pytest.mark.parametrize(
    ("platform", "seconds"),
    [(Platform("youtube"), 180.5), (Platform("tiktok"), 601), (Platform("instagram"), 901), (Platform("instagram"), 2.9)],
)
def test_a_wrong_length_is_refused_with_both_numbers(platform: Platform, seconds: float) -> None:
    verdict = judge_fit(MASTER.model_copy(update={"seconds": seconds}), platform, edited=False, interlaced=False)
    assert verdict.impossible
    assert f"{seconds:.1f} s" in verdict.impossible


def _box(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _movie(media_time: int) -> bytes:
    elst = _box(b"elst", struct.pack(">IIIiI", 0, 1, 1000, media_time, 1 << 16))
    return _box(b"moov", _box(b"trak", _box(b"edts", elst)))


def test_boxes_tell_where_moov_is_and_whether_an_edit_list_cuts(tmp_path: Path) -> None:
    ftyp, mdat, path = _box(b"ftyp", b"isom\0\0\0\0"), _box(b"mdat", b"x" * 50), tmp_path / "a.mp4"
    for data, moov_first, edited in [
        (ftyp + _movie(0) + mdat, True, False),
        (ftyp + _movie(1024) + mdat, True, True),
        (ftyp + mdat + _movie(-1), False, True),
        (ftyp + mdat, False, False),
        (b"\0\0\0\1mdat" + struct.pack(">Q", 66) + b"x" * 50 + _movie(0), False, False),
        (ftyp + _movie(0)[:20], True, False),
        (b"not a movie at all", False, False),
        (b"", False, False),
    ]:
        path.write_bytes(data)
        boxes = read_boxes(path)
        assert (boxes.moov_first, boxes.edited) == (moov_first, edited), data
