"""Burned-in captions have their words and punctuation, and no hanging punctuation."""

# ruff: noqa: RUF001  texts in many scripts

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phantoms_dagster.domain import caption_marks
from phantoms_dagster.domain.markup import one_line
from phantoms_dagster.domain.models import Palette, Sentence
from phantoms_dagster.media import captions, layout
from phantoms_dagster.media.fonts import Fonts, load_fonts
from phantoms_dagster.providers.shotstack import edit as shotstack_edit


@pytest.fixture(scope="module")
def fonts(tmp_path_factory: pytest.TempPathFactory) -> Fonts:
    return load_fonts(tmp_path_factory.mktemp("fonts"))


def lines(text: str, fonts: Fonts, language: str = "en") -> list[str]:
    """The captions of a sentence as they are seen."""
    timed = captions.timed_words(Sentence(text=text, scene=0, start=0, end=10))
    return [layout.joined(captions.shown(group)) for group in captions.chunks(timed, fonts, language)]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("If it feels familiar, good; stay with it.", ["If it feels", "familiar, good", "stay with it."]),
        ("Remember: three hearts.", ["Remember", "three hearts."]),
        ("Three hearts — not one.", ["Three hearts", "not one."]),
        ("Three hearts—not one.", ["Three hearts", "not one."]),
        ("From 1914–1918, mostly.", ["From 1914–1918, mostly."]),
        ("He said, “Stop the boat now,” and left.", ["He said", "“Stop the boat now”", "and left."]),
        ("The “healthy” option.", ["The “healthy” option."]),
        ("In cold water (like here), it works.", ["In cold", "water (like here)", "it works."]),
    ],
)
def test_no_caption_ends_or_begins_with_a_mark_that_belongs_between_two(text: str, seen: list[str], fonts: Fonts) -> None:
    """A caption read GOOD; and another one was a dash alone."""
    assert lines(text, fonts) == seen


@pytest.mark.parametrize(
    "word",
    [
        *("dogs'", "'tis", "rock'n'roll", "’90s", "U.S.", "1,250.5", "$3.50", "50%", "What?!", "No!", "-5", "C++", "@home", "Vor-"),
        *("¿Qué?", "¡Sí!", "心脏。", "「心」", "لماذا؟", "نعم،", "καρδιές;", "f(x)", '6"', "wait…", "AT&T", "😀"),
    ],
)
def test_what_belongs_to_a_word_stays(word: str) -> None:
    assert caption_marks.shown([word], caption_marks.quotes([word])) == [word]


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("good;", "good"),
        ("water,", "water"),
        ("this:", "this"),
        ("—yes", "yes"),
        ("no—", "no"),
        ("“no", "no"),
        ("no”", "no"),
        ('"no', "no"),
        ("«no", "no"),
        ("(no", "no"),
        ("“no,”", "“no”"),
    ],
)
def test_marks_that_hang_on_a_word_are_removed(written: str, seen: str) -> None:
    assert caption_marks.shown([written], [False]) == [seen]


def test_single_quotes_around_words_are_quotes_and_apostrophes_are_not() -> None:
    words = ["He", "said", "'stop", "the", "dogs'", "and", "'tis", "done"]
    quoted = caption_marks.quotes(words)
    assert quoted == [False, False, True, False, True, False, False, False]
    assert caption_marks.shown(words[2:4], quoted[2:4]) == ["stop", "the"]
    assert caption_marks.shown(words[2:5], quoted[2:5]) == ["'stop", "the", "dogs'"]
    assert caption_marks.shown(words[6:], quoted[6:]) == ["'tis", "done"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Vraiment ? Oui !", ["Vraiment ?", "Oui !"]),
        ("« Non » dit-il", ["« Non »", "dit-il"]),
        ("Three — no, four", ["Three —", "no,", "four"]),
        ("plus 50 % of it", ["plus", "50 %", "of", "it"]),
        ("You & me", ["You", "&", "me"]),
        ("— Hola", ["— Hola"]),
    ],
)
def test_a_mark_alone_is_not_a_word(text: str, words: list[str]) -> None:
    assert caption_marks.attached(text.split()) == words


TEXTS = st.text(st.characters(max_codepoint=0x24F, exclude_categories=["Cc"]), min_size=1, max_size=60) | st.lists(
    st.sampled_from(
        [
            "three",
            "hearts,",
            "good;",
            "this:",
            "—",
            "-",
            "“so",
            "far”",
            "(no",
            "yes)",
            "'tis",
            "¿Qué?",
            "»",
            "?",
            "two—three",
            "😀",
            "3.5",
        ]
    ),
    min_size=1,
    max_size=15,
).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_in_any_sentence_no_word_is_lost_and_no_mark_hangs(fonts: Fonts, text: str) -> None:
    seen = lines(text, fonts)
    letters = re.compile(r"\w")
    assert "".join(letters.findall("".join(seen))) == "".join(letters.findall(one_line(text)))
    for line in seen:
        if letters.search(line):
            assert not re.search(r"[,;:—–]$|^[,;:—–]|(?:^|\s)-$", line) or re.search(r"[\u0370-\u03ff];$", line), line


@settings(max_examples=60, deadline=None)
@given(TEXTS.filter(lambda text: re.search(r"\w", text)))
def test_the_captions_of_the_render_service_are_as_clean(text: str) -> None:
    for line, _ in shotstack_edit._chunks(" ".join(text.split())):
        assert not re.search(r"[,;:—–]$|^[,;:—–]", line) or re.search(r"[\u0370-\u03ff];$", line), line


def test_no_caption_ends_with_a_word_that_asks_for_the_next_one(fonts: Fonts) -> None:
    """A video of the demo had the caption AND THE."""
    text = "Two hearts pump blood through the gills, and the third sends it round the body."
    seen = lines(text, fonts)
    assert "and the third" in seen
    assert not [line for line in seen if line.endswith((" the", " and"))]


def test_a_caption_of_marks_alone_makes_no_event(fonts: Fonts) -> None:
    sentences = [Sentence(text="—", scene=0, start=0, end=1), Sentence(text="Yes.", scene=0, start=1, end=2)]
    assert len(captions.caption_events(sentences, Palette(), fonts)) == 1
