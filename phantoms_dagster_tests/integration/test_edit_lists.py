"""Edit lists removed from real videos: the result plays the same packets as ffmpeg's own copy without them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import pytest

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.media import ffmpeg, graph
from phantoms_dagster.media.edit_lists import without_edit_lists
from phantoms_dagster.media.mp4 import read_boxes
from phantoms_dagster.media.studio import FfmpegStudio

PICTURE = ["-f", "lavfi", "-i", "testsrc2=s=360x640:r=30:d=4"]
SOUND = ["-f", "lavfi", "-i", "sine=1000:r=44100:d=4"]
PLAIN = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
B_FRAMES = ["-c:v", "libx264", "-preset", "fast", "-pix_fmt", "yuv420p"]
MP4 = ["-movflags", "+faststart", "-f", "mp4"]


@dataclasses.dataclass(frozen=True)
class Packet:
    """Times in seconds."""

    kind: str
    shown: Fraction
    decoded: Fraction
    lasts: Fraction
    content: bytes


def packets(path: Path) -> list[Packet]:
    found = []
    with av.open(str(path)) as video:
        for packet in video.demux():
            if packet.pts is not None and packet.dts is not None and packet.duration is not None:
                base = packet.time_base
                times = (packet.pts * base, packet.dts * base, packet.duration * base)
                found.append(Packet(packet.stream.type, *times, bytes(packet)))
    return sorted(found, key=lambda p: (p.kind, p.decoded))


def frames(path: Path, kind: str) -> list[float | None]:
    with av.open(str(path)) as video:
        if kind == "video":
            return [frame.time for frame in video.decode(video.streams.video[0])]
        return [frame.time for frame in video.decode(video.streams.audio[0])]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each video is kept once it is made."""
    return tmp_path_factory.mktemp("videos")


async def video(videos: Path, name: str, folder: Path) -> Path:
    """A video with edit lists, as ffmpeg makes them by default: a copy in `folder`."""
    if not (videos / f"{name}.mp4").exists():
        await make_video(videos, name)
    return Path(shutil.copy(videos / f"{name}.mp4", folder))


async def make_video(folder: Path, name: str) -> Path:
    path, base = folder / f"{name}.mp4", folder / "base.mp4"
    if name == "no B-frames":
        await ffmpeg.run([*PICTURE, *SOUND, *PLAIN, *MP4, str(path)])
        return path
    if name == "silent":
        await ffmpeg.run([*PICTURE, *B_FRAMES, *MP4, str(path)])
        return path
    if not base.exists():
        await ffmpeg.run([*PICTURE, *SOUND, *B_FRAMES, *MP4, str(base)])
    both = ["-map", "0:v", "-map", "1:a", "-c", "copy"]
    given: dict[str, Sequence[str]] = {
        "B-frames": ["-i", str(base), "-c", "copy"],
        "late sound": ["-i", str(base), "-itsoffset", "0.4", "-i", str(base), *both],
        "late picture": ["-itsoffset", "0.4", "-i", str(base), "-i", str(base), *both],
        "long times": ["-i", str(base), "-c", "copy", "-video_track_timescale", "1000000"],
        "cut": ["-ss", "1.5", "-i", str(base), "-c", "copy"],
        "two sounds": ["-i", str(base), "-map", "0:v", "-map", "0:a", "-map", "0:a", "-c", "copy"],
        "fragments": ["-i", str(base), "-c", "copy", "-movflags", "frag_keyframe"],
    }
    await ffmpeg.run([*given[name], *(MP4 if name != "fragments" else []), str(path)])
    return path


@pytest.mark.parametrize("name", ["no B-frames", "B-frames", "late sound", "late picture", "long times", "silent"])
async def test_a_video_without_its_edit_lists_plays_as_ffmpegs_copy_does(videos: Path, tmp_path: Path, name: str) -> None:
    source, ours, theirs = await video(videos, name, tmp_path), tmp_path / "ours.mp4", tmp_path / "theirs.mp4"
    assert read_boxes(source).edited
    assert without_edit_lists(source, ours)
    await ffmpeg.run(["-i", str(source), "-c", "copy", *graph.MP4, str(theirs)])
    assert not read_boxes(ours).edited
    assert ours.stat().st_size == source.stat().st_size
    made, expected = packets(ours), packets(theirs)
    assert [(p.kind, p.content) for p in made] == [(p.kind, p.content) for p in expected]
    for one, other in zip(made, expected, strict=True):
        for time in ("shown", "decoded", "lasts"):
            assert abs(getattr(one, time) - getattr(other, time)) <= Fraction(1, 15_360)
    for kind in {p.kind for p in made}:
        assert frames(ours, kind) == pytest.approx(frames(theirs, kind), abs=1e-4)


@pytest.mark.parametrize("name", ["cut", "two sounds", "fragments"])
async def test_a_video_whose_edits_do_more_than_align_is_left_alone(videos: Path, tmp_path: Path, name: str) -> None:
    source, out = await video(videos, name, tmp_path), tmp_path / "out.mp4"
    assert not without_edit_lists(source, out)
    assert not out.exists()


@pytest.mark.parametrize("keep", [0, 7, 200, 3_000])
async def test_an_incomplete_video_is_left_alone(videos: Path, tmp_path: Path, keep: int) -> None:
    source, out = await video(videos, "B-frames", tmp_path), tmp_path / "out.mp4"
    source.write_bytes(source.read_bytes()[:keep])
    assert not without_edit_lists(source, out)
    assert not out.exists()


@pytest.mark.parametrize("name", ["B-frames", "two sounds"])
async def test_instagram_gets_a_video_of_the_same_length_without_edit_lists(videos: Path, tmp_path: Path, name: str) -> None:
    """However it has to be made: in place, or by copying packets."""
    source, out, studio = await video(videos, name, tmp_path), tmp_path / "out.mp4", FfmpegStudio()
    before = await studio.probe(source)
    fitted = await studio.fit(source, Platform("instagram"), lambda: out)
    assert (fitted.how, fitted.probe) == ("remuxed", await studio.probe(out))
    assert not read_boxes(out).edited
    assert fitted.probe.moov_first
    assert fitted.probe.seconds == pytest.approx(before.seconds, abs=0.1)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
