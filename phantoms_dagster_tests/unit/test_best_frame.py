"""Which frame of a video is its best: the sharpest key frame that has a headline on it and is not empty."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from phantoms_dagster.domain.errors import Permanent
from phantoms_dagster.domain.models import Sentence
from phantoms_dagster.media.frames import best_frame, headlines, sharpness

WIDTH, HEIGHT, RATE = 270, 480, 2
Picture = NDArray[np.uint8]


def stripes(width: int) -> Picture:
    """Upright stripes: the thinner, the sharper."""
    row = (np.arange(WIDTH) // width % 2 * 200 + 20).astype(np.uint8)
    return np.stack([np.tile(row, (HEIGHT, 1))] * 3, axis=-1)


def video(path: Path, pictures: list[Picture]) -> Path:
    """Each picture is shown for a second, of which the first frame is a key frame."""
    with av.open(str(path), "w") as made:
        stream = made.add_stream("libx264", rate=RATE, options={"crf": "10", "sc_threshold": "0", "keyint_min": str(RATE)})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = WIDTH, HEIGHT, "yuv420p", RATE
        for number in range(len(pictures) * RATE):
            frame = av.VideoFrame.from_ndarray(pictures[number // RATE], format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
    return path


def shown(jpeg: bytes, path: Path) -> Picture:
    path.write_bytes(jpeg)
    with av.open(str(path)) as opened:
        [frame] = list(opened.decode(video=0))
        return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def test_the_sharpest_frame_under_a_headline_is_taken_and_is_a_real_picture(tmp_path: Path) -> None:
    blank = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    made = video(tmp_path / "video.mp4", [blank, stripes(30), stripes(10), stripes(45), stripes(4)])
    best = best_frame(made, [(0.0, 3.5)])
    assert best.second == pytest.approx(2.0, abs=0.01), "the one at 4 s is sharper and has no headline"
    picture = shown(best.jpeg, tmp_path / "frame.jpg")
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert float(np.abs(picture.astype(int) - stripes(10)).mean()) < 12, "its brightness is that of the video"
    assert best.sharpness > sharpness(stripes(30)[..., 0]) > sharpness(blank[..., 0]) == 0


def test_without_a_key_frame_under_a_headline_all_of_them_count(tmp_path: Path) -> None:
    made = video(tmp_path / "video.mp4", [stripes(30), stripes(4)])
    assert best_frame(made, [(0.2, 0.4)]).second == pytest.approx(1.0, abs=0.01)
    assert best_frame(made, []).second == pytest.approx(1.0, abs=0.01)


def test_a_video_of_empty_pictures_and_a_file_that_is_not_a_video_are_reported(tmp_path: Path) -> None:
    made = video(tmp_path / "video.mp4", [np.full((HEIGHT, WIDTH, 3), 90, np.uint8)] * 2)
    with pytest.raises(Permanent, match="empty pictures"):
        best_frame(made, [(0.0, 2.0)])
    (tmp_path / "page.mp4").write_bytes(b"<html>")
    with pytest.raises(Permanent, match=r"page\.mp4 cannot be read"):
        best_frame(tmp_path / "page.mp4", [])


def test_the_first_headline_is_there_from_the_start_and_others_once_they_have_moved_in() -> None:
    spoken = [
        Sentence(text="Three hearts?", scene=-1, start=0.0, end=2.0),
        Sentence(text="Two pump blood.", scene=0, start=2.2, end=4.0),
        Sentence(text="Through the gills.", scene=0, start=4.1, end=6.0),
        Sentence(text="A scene without one.", scene=1, start=6.2, end=8.0),
    ]
    assert headlines(spoken, 1) == [pytest.approx((0.0, 1.7)), pytest.approx((2.8, 5.7))]
