"""Texts in many scripts, drawn by the real ffmpeg: every letter has a glyph, and right-to-left texts run right to left."""

# ruff: noqa: RUF001  texts in many scripts

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray

from phantoms_dagster.domain.models import Palette, Sentence
from phantoms_dagster.domain.ports import RenderJob
from phantoms_dagster.media import ass, cards, coverage, layout
from phantoms_dagster.media.fonts import Fonts, load_fonts
from phantoms_dagster.media.studio import FfmpegStudio

TEXTS = {
    "emoji": ("Why \N{OCTOPUS} hearts ★ beat 日本", "The word 水 means water \N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL} ✓ ♥ {x}"),
    "Chinese": ("章鱼为什么有三颗心脏和九个大脑", "章鱼的血是蓝色的，它有三颗心脏！"),
    "Japanese": ("タコの心臓はなぜ三つあるのか", "タコの血は青い。"),
    "Korean": ("문어는 왜 심장이 세 개일까", "문어의 피는 파랗다."),
    "Hindi": ("ऑक्टोपस के 3 दिल क्यों होते हैं", "समुद्र में 3 दिल"),
    "Thai": ("ทำไมหมึกยักษ์มีหัวใจ 3 ดวง", "หมึกยักษ์มีหัวใจสามดวงในทะเล"),
    "Hebrew": ("למה לתמנון יש 3 לבבות ב-2024?", "לתמנון יש 3 לבבות (באמת)!"),
    "Arabic": ("لماذا للأخطبوط 3 قلوب في 2024؟", "للأخطبوط 3 قلوب (حقا)!"),
    "Greek": ("Γιατί το χταπόδι έχει 3 καρδιές;", "Έχει τρεις καρδιές."),
    "Vietnamese": ("Tại sao bạch tuộc có 3 trái tim", "Ở biển có bạch tuộc."),
}


@pytest.fixture(scope="module")
def fonts(tmp_path_factory: pytest.TempPathFactory) -> Fonts:
    return load_fonts(tmp_path_factory.mktemp("fonts"))


def job(title: str, spoken: str, channel: str = "Fun Facts \N{OCTOPUS} 日本") -> RenderJob:
    sentences = (Sentence(text=spoken, scene=-1, start=0, end=1),)
    return RenderJob("k", "a", title, "h", (), sentences, 1.5, Path("x"), Palette(), channel)


def drawn(document: str, fonts: Fonts, folder: Path) -> tuple[bytes, str]:
    """The pixels of the frame at 0.5 s, and what libass said."""
    (folder / "fonts").mkdir()
    for face in fonts.named_in(document):
        (folder / "fonts" / face.path.name).symlink_to(face.path)
    (folder / "c.ass").write_text(document, encoding="utf-8")
    source = ["-f", "lavfi", "-i", f"color=c=black:s={ass.WIDTH}x{ass.HEIGHT}:r=4:d=1", "-vf", "ass=c.ass:fontsdir=fonts"]
    frame = ["-ss", "0.5", "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    ran = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "verbose", *source, *frame], cwd=folder, capture_output=True, check=True
    )
    return ran.stdout, ran.stderr.decode()


@pytest.mark.parametrize("script", TEXTS)
def test_every_letter_of_header_card_and_captions_has_a_glyph(fonts: Fonts, tmp_path: Path, script: str) -> None:
    made = job(*TEXTS[script])
    pixels, said = drawn(cards.screenplay(made, np.zeros((45, 12), np.float32), fonts), fonts, tmp_path)
    assert max(pixels) > 200, "something is drawn"
    assert "fontselect" in said
    assert "lyph" not in said, said


def test_a_letter_without_a_glyph_would_be_noticed(fonts: Fonts, tmp_path: Path) -> None:
    style = ass.style("A", family=fonts.display.family, size=90, colour="#ffffff", outline_colour="#000000", outline=0)
    _, said = drawn(ass.document([style], [ass.SubtitleEvent(0, 0, 1, "A", "日")]), fonts, tmp_path)
    assert "lyph" in said


@pytest.mark.parametrize(
    ("written", "seen"),
    [("אבג 3!", "!3 גבא"), ("יש 25 לבבות (3)?", "?(3) תובבל 25 שי"), ("Only 3!", "Only 3!")],
)
def test_a_line_runs_the_way_of_its_first_letter(fonts: Fonts, tmp_path: Path, written: str, seen: str) -> None:
    """The same pixels as the letters laid down from left to right in the order in which they should be seen."""
    stack = fonts.for_text(written)
    style = ass.style("A", family=stack.main.family, size=90, colour="#ffffff", outline_colour="#000000", outline=0)

    def line(text: str, folder: str) -> NDArray[np.float64]:
        (tmp_path / folder).mkdir()
        event = ass.SubtitleEvent(0, 0, 1, "A", f"{{\\an4\\pos(140,900){stack.tag(80)}}}{text}")
        pixels = drawn(ass.document([style], [event]), fonts, tmp_path / folder)[0]
        return np.frombuffer(pixels, np.uint8).astype(float)

    ours, expected = line(stack.set(written, 80), "written"), line(f"\u202d{stack.set(seen, 80)}", "seen")
    assert np.abs(ours - expected).sum() < 0.05 * expected.sum()  # edges differ by fractions of a pixel; a wrong order by 100 %


async def test_what_no_font_has_is_known_before_anything_is_rendered() -> None:
    texts = [text for pair in TEXTS.values() for text in pair]
    assert await FfmpegStudio().missing_glyphs(texts) == ()
    assert await FfmpegStudio().missing_glyphs(["Ur \U00012000 and \U0001f419", "\ue000 x"]) == ("\U00012000", "\ue000")


def test_every_piece_is_set_in_a_face_that_has_it_and_none_is_lost(fonts: Fonts) -> None:
    for text in (text for pair in TEXTS.values() for text in pair):
        runs = fonts.for_display(text).runs(text)
        assert "".join(part for _, part in runs) == text
        for face, part in runs:
            assert all(coverage._INVISIBLE.match(c) or ord(c) in face.advances for c in part), (face.family, part)


def test_a_title_without_spaces_is_broken_into_lines_and_never_before_a_closing_mark(fonts: Fonts) -> None:
    text = "章鱼的血是蓝色的，它有三颗心脏！" * 2
    block = layout.fit(
        layout.breakable(text), fonts.for_display(text), width=820, height=400, largest=156, smallest=60, most_lines=4
    )
    assert len(block.lines) > 1
    assert block.width <= 820
    assert "".join(layout.joined(line) for line in block.lines) == text
    assert not any(layout.joined(line)[0] in "，！" for line in block.lines)
