"""What is shown: plain words, each at its time, inside the frame. No ffmpeg here."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phantoms_dagster.domain.markup import one_line
from phantoms_dagster.domain.models import Palette, Sentence
from phantoms_dagster.domain.text import graphemes
from phantoms_dagster.media import ass, captions, layout
from phantoms_dagster.media.fonts import Fonts, load_fonts

_DIALOGUE = re.compile(r"^Dialogue: \d+,(?P<start>[\d:.]+),(?P<end>[\d:.]+),\w+,,0,0,0,,(?P<text>.*)$")
WORDS = st.lists(
    st.text(st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=40), min_size=1, max_size=30
)


@pytest.fixture(scope="module")
def fonts(tmp_path_factory: pytest.TempPathFactory) -> Fonts:
    return load_fonts(tmp_path_factory.mktemp("fonts"))


@settings(max_examples=150, deadline=None)
@given(WORDS, st.floats(0, 500), st.floats(0.2, 20))
def test_words_fill_their_sentence_without_gap_or_overlap(words: list[str], start: float, length: float) -> None:
    sentence = Sentence(text=" ".join(words), scene=0, start=start, end=start + length)
    timed = captions.timed_words(sentence)
    if not timed:
        assert one_line(sentence.text) == ""
        return
    assert timed[0].start == sentence.start
    assert timed[-1].end == sentence.end
    assert all(a.end == b.start for a, b in itertools.pairwise(timed))
    assert all(word.end > word.start for word in timed)
    said = "".join(word.text.removesuffix(layout.GLUE) for word in timed)
    assert said.replace(" ", "") == one_line(sentence.text).replace(" ", "")


def test_a_long_word_takes_longer_than_a_short_one_and_a_comma_makes_a_pause() -> None:
    extraordinary, a, comma, plain = captions.timed_words(Sentence(text="extraordinary a cat, cat", scene=0, start=0, end=4))
    assert extraordinary.end - extraordinary.start > 3 * (a.end - a.start)
    assert comma.end - comma.start > plain.end - plain.start


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(WORDS)
def test_no_caption_ever_leaves_the_safe_area(fonts: Fonts, words: list[str]) -> None:
    timed = captions.timed_words(Sentence(text=" ".join(words), scene=0, start=0, end=10))
    groups = captions.chunks(timed, fonts)
    assert [word for group in groups for word in group] == list(timed)
    for group in groups:
        assert len(group) <= captions.MOST_WORDS
        block = captions.block(group, fonts)
        assert len(block.lines) <= captions.MOST_LINES
        assert block.width + 2 * captions.OUTLINE <= ass.SAFE_WIDTH + 1e-6
        half = len(block.lines) * block.em * block.face.main.line / 2
        assert captions.CENTRE_Y - half > ass.SAFE_TOP
        assert captions.CENTRE_Y + half < ass.SAFE_BOTTOM


def test_the_safe_area_keeps_clear_of_the_platforms_own_buttons() -> None:
    assert ass.SAFE_TOP >= 0.14 * ass.HEIGHT
    assert ass.HEIGHT - ass.SAFE_BOTTOM >= 0.22 * ass.HEIGHT
    assert ass.WIDTH - ass.SAFE_RIGHT >= 0.12 * ass.WIDTH


def test_words_stand_in_groups_of_two_to_four_that_end_at_a_comma(fonts: Fonts) -> None:
    text = "In cold water, that works far better than iron ever did for us."
    groups = captions.chunks(captions.timed_words(Sentence(text=text, scene=0, start=0, end=5)), fonts)
    assert all(2 <= len(group) <= 4 for group in groups)
    assert groups[0][-1].text == "water,"


def test_the_word_that_is_spoken_has_the_accent_colour_and_captions_never_overlap(fonts: Fonts) -> None:
    palette = Palette(accent="#12ab34")
    sentences = [
        Sentence(text="Two of them stop.", scene=-1, start=0.2, end=1.7),
        Sentence(text="Really.", scene=0, start=2.0, end=2.5),
    ]
    events = captions.caption_events(sentences, palette, fonts)
    spoken = [re.search(r"&H34AB12&\}([^{]*)\{", event.text) for event in events]
    assert [match and match[1] for match in spoken] == ["TWO", "OF", "THEM", "STOP.", "REALLY."]
    assert all(a.end <= b.start for a, b in itertools.pairwise(events))
    assert events[3].end == sentences[1].start, "over a short pause the last words stay"
    assert events[4].start == sentences[1].start


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.text("\\Nnh{} ab", max_size=20))
def test_nothing_a_person_writes_becomes_a_tag_or_a_line_break(text: str) -> None:
    escaped = ass.escape(text)
    assert "\n" not in escaped
    assert "\r" not in escaped
    assert not re.search(r"(?<!\\)[{}]", escaped)
    assert not re.search(r"\\[Nnh]", escaped), "a backslash of the text would break the line"
    shown = escaped.replace("\\{", "{").replace("\\}", "}").replace("\\\u2060", "\\")
    assert shown == " ".join(text.split())


def test_times_are_rounded_down_so_that_neighbours_never_overlap() -> None:
    assert ass.timestamp(0.999999) == "0:00:00.99"
    assert ass.timestamp(3_661.239) == "1:01:01.23"
    document = ass.document(
        [], [ass.SubtitleEvent(0, 1.001, 1.002, "A", "never seen"), ass.SubtitleEvent(0, 1.0, 2.0, "A", "seen")]
    )
    lines = [match["text"] for line in document.splitlines() if (match := _DIALOGUE.match(line))]
    assert lines == ["seen"]


def test_thai_breaks_between_its_words_and_never_inside_of_one() -> None:
    """It broke after every twelfth letter: in the middle of the words for squid and for Thailand."""
    words = ["ปลาหมึก", "ยักษ์", "มี", "หัวใจ", "สาม", "ดวง", "และ", "อาศัย", "อยู่", "ใน", "ทะเล", "ของ", "ประเทศไทย"]
    text = "".join(words)
    pieces = layout.breakable(text)
    assert layout.joined(pieces) == text
    assert len(pieces) >= 4
    borders = list(itertools.accumulate(len(word) for word in words))
    cuts = list(itertools.accumulate(len(piece.removesuffix(layout.GLUE)) for piece in pieces))
    inside = [text[cut - 3 : cut + 3] for cut in cuts if cut not in borders and text[cut:] != "ไทย"]
    assert inside == []


@pytest.mark.parametrize("text", ["ที่นี่", "ก" * 40, "เก้า(สิบ)ครั้ง!", "ABCไทย123", "ๆๆๆๆๆๆๆๆๆๆๆๆๆๆ", "กำ" * 20, "น้ำ" * 15])
def test_no_letter_of_thai_is_cut_from_its_marks(text: str) -> None:
    pieces = [piece.removesuffix(layout.GLUE) for piece in layout.breakable(text)]
    assert "".join(pieces) == text
    assert [letter for piece in pieces for letter in graphemes(piece)] == graphemes(text)
    assert all(len(graphemes(piece)) <= 2 * layout.LONGEST_UNSPACED for piece in pieces)


@given(st.text(st.sampled_from("กขงนมเแไาำิีุู่้์ๆ a\u0301\u200d(!)5"), max_size=60).map(one_line))
def test_no_text_with_thai_loses_anything_or_is_cut_inside_of_a_letter(text: str) -> None:
    pieces = layout.breakable(text)
    assert layout.joined(pieces) == text
    assert [letter for piece in pieces for letter in graphemes(piece.removesuffix(layout.GLUE))] == [
        letter for word in text.split() for letter in graphemes(word)
    ]


def test_a_title_shrinks_until_it_fits_its_box(fonts: Fonts) -> None:
    for text in ("WHY", "DONAUDAMPFSCHIFFFAHRTSGESELLSCHAFTSKAPITAEN" * 2, " ".join(["INCOMPREHENSIBILITIES"] * 9)):
        block = layout.fit(
            layout.breakable(text), fonts.for_display(text), width=820, height=400, largest=156, smallest=84, most_lines=4
        )
        assert block.width <= 820 + 1e-6
        assert len(block.lines) <= 4
        assert len(block.lines) * block.em * layout.LINE_HEIGHT <= 400 + 1e-6
        assert layout.joined([word for line in block.lines for word in line]) == text


def test_a_script_that_a_font_lacks_is_set_in_one_that_has_it(fonts: Fonts) -> None:
    assert fonts.for_display("OCEAN").main is fonts.display
    assert fonts.for_display("\u0416\u0423\u041a").main is fonts.text
    assert fonts.for_display("ΩΚΕΑΝΟΣ").main is fonts.world


def test_fonts_are_prepared_once_and_found_again(tmp_path: Path) -> None:
    load_fonts(tmp_path)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    load_fonts.cache_clear()
    again = load_fonts(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == made
    assert again.text.width("MMMM", 100) > again.text.width("iiii", 100)
