"""Where a sentence ends: the voice and the captions use one module, which knows the language and loses no text."""

# ruff: noqa: RUF001  texts in many scripts

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantoms_dagster.domain.sentences import split
from phantoms_dagster.domain.text import speakable


@pytest.mark.parametrize(
    "sentence",
    [
        "The U.S. Army has 1.5 million people.",
        "He met No. 5 and left.",
        "On Jan. 5 it rained.",
        "Germany vs. Brazil ended 7 to 1.",
        "See e.g. London.",
        "It took approx. 5 eggs.",
        "Dr. Smith met Mr. J. K. Jones.",
        "At 5 p.m. we ate.",
        "See fig. 3 and pp. 5 to 7.",
        'He said "Stop." and left.',
        "Visit example.com today.",
    ],
)
def test_a_full_stop_inside_a_sentence_does_not_end_it(sentence: str) -> None:
    assert split(f"Look here. {sentence} Really? Yes!", "en") == ["Look here.", sentence, "Really?", "Yes!"]


@pytest.mark.parametrize(
    ("language", "sentences"),
    [
        ("zh-Hant", ["你好。", "世界很大！", "真的吗？", "是的"]),
        ("ja", ["タコの心臓は三つ。", "血は青い！"]),
        ("hi", ["यह पहला है।", "यह दूसरा है।"]),
        ("ar", ["هل هذا صحيح؟", "نعم.", "شكرا"]),
        ("de", ["Am 5. Januar regnete es.", "Dr. Müller kam."]),
        ("es", ["¿Qué?", "¡Sí!", "El Sr. López vino."]),
    ],
)
def test_other_languages_end_their_sentences_their_way(language: str, sentences: list[str]) -> None:
    space = "" if language[:2] in ("zh", "ja") else " "
    assert split(space.join(sentences), language) == sentences


def test_what_has_no_word_stays_with_its_neighbour() -> None:
    assert split("Look! ★★★ Great. \N{OCTOPUS}", "en") == ["Look!", "★★★ Great. \N{OCTOPUS}"]
    assert split("¿?", "en") == ["¿?"]
    assert split("1984! Really.", "en") == ["1984!", "Really."]


@given(st.text(max_size=80), st.sampled_from(["en", "de", "zh-Hans", "th", "xx", "English", ""]))
def test_nothing_is_lost_and_every_sentence_can_be_spoken(text: str, language: str) -> None:
    sentences = split(text, language)
    assert "".join(sentences).replace(" ", "") == "".join(text.split())
    assert all(map(speakable, sentences)) or len(sentences) <= 1
