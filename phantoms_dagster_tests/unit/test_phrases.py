"""Headlines, titles and captions do not break off: they end where a sentence or a clause does, in the language's own way."""

# ruff: noqa: RUF001  texts in many scripts

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from phantoms_dagster.domain.function_words import WORDS
from phantoms_dagster.domain.phrases import ELLIPSIS, breaks_off, cells, headline, shortened, trimmed, whole
from phantoms_dagster.domain.text import graphemes

HEART = "The third heart stops beating while the octopus swims, which is why it prefers to crawl."


@pytest.mark.parametrize(
    ("most", "shown"),
    [
        (110, HEART),
        (60, "The third heart stops beating while the octopus swims"),
        (40, "The third heart stops beating"),
        (20, ""),
    ],
)
def test_a_headline_is_the_sentence_or_a_clause_of_it_or_nothing(most: int, shown: str) -> None:
    """A card of README's own picture read THE THIRD HEART STOPS BEATING WHILE."""
    assert headline(HEART, most, "en") == shown


@pytest.mark.parametrize(
    ("language", "text", "shown"),
    [
        ("en", "Its blood is blue, because it carries oxygen with copper instead of iron.", "Its blood is blue"),
        ("en", "If it feels familiar, good; stay with it a little longer than that.", "If it feels familiar, good"),
        ("en-GB", "Bees make it; bears take it. Nobody pays for any of it, ever.", "Bees make it; bears take it."),
        ("en", "Two hearts pump blood through the gills, and the third sends it on.", "Two hearts pump blood through the gills"),
        ("de", "Das dritte Herz hört auf zu schlagen, während der Krake schwimmt.", "Das dritte Herz hört auf zu schlagen"),
        ("fr", "Son sang est bleu parce qu'il contient du cuivre et non du fer.", "Son sang est bleu"),
        ("es", "Su sangre es azul porque lleva cobre en lugar de hierro.", "Su sangre es azul"),
        ("pt-BR", "O sangue dele é azul porque leva cobre em vez de ferro.", "O sangue dele é azul"),
        ("it", "Il terzo cuore si ferma mentre il polpo nuota nel mare aperto.", "Il terzo cuore si ferma"),
        ("nl", "Het bloed is heel blauw omdat het koper bevat in plaats van ijzer.", "Het bloed is heel blauw"),
        ("pl", "Trzecie serce przestaje bić, ponieważ ośmiornica właśnie pływa.", "Trzecie serce przestaje bić"),
        ("ru", "Третье сердце перестаёт биться, потому что осьминог плывёт.", "Третье сердце перестаёт биться"),
        ("ja", "タコの血は青い。銅で酸素を運ぶからである。だから寒い海でも生きられる。", "タコの血は青い。"),
        ("zh-Hans", "章鱼有三颗心脏；其中两颗把血液送到鳃里，另一颗送到全身各处。", "章鱼有三颗心脏"),
    ],
)
def test_a_sentence_is_cut_where_a_clause_of_its_language_ends(language: str, text: str, shown: str) -> None:
    assert headline(text, 40, language) == shown


@pytest.mark.parametrize(
    "text",
    [
        "A small, quiet, and the best town of them all lies at the foot of the hill.",  # a list
        "It eats crabs, fish, and the odd shark that swims too close to its den.",
        "When the third heart stops, because the animal swims, it tires soon.",  # begins with what leans on the rest
        "The blood is not blue because of the iron that it has in every cell.",  # the opposite
        "Nobody knew where eels go, because no one had ever seen one spawn.",
        "It beats only because the octopus rests on the floor of the sea now.",
        "A cat bends in the middle and turns its front half and its back half apart.",
    ],
)
def test_no_headline_is_better_than_one_that_breaks_off_or_says_something_else(text: str) -> None:
    assert headline(text, 45, "en") == ""


@pytest.mark.parametrize(
    ("language", "written", "shown"),
    [
        ("en", "The third heart stops beating while", "The third heart stops beating"),
        ("en", "Three hearts and the", ""),
        ("en", "What it is made of", "What it is made of"),
        ("en", "Know who you are", "Know who you are"),
        ("en", "Feels familiar? Good;", "Feels familiar? Good"),
        ("en", "Three hearts:", "Three hearts"),
        ("en", "— Blue blood —", "Blue blood"),
        ("en", "“Blue blood", "Blue blood"),
        ("en", 'Blue blood"', "Blue blood"),
        ("en", "“Blue” blood", "“Blue” blood"),
        ("en", "The dogs' den", "The dogs' den"),
        ("en", "'Tis the season", "'Tis the season"),
        ("en", "$3.50 a day!", "$3.50 a day!"),
        ("en", "-5 °C", "-5 °C"),
        ("en", ".NET in 60 seconds", ".NET in 60 seconds"),
        ("en", 'A 6" gun', 'A 6" gun'),
        ("en", "C++ or C#?", "C++ or C#?"),
        ("es", "¿Qué pasa?", "¿Qué pasa?"),
        ("de", "„Blaues“ Blut", "„Blaues“ Blut"),
        ("de", "»Blut«", "»Blut«"),
        ("fr", "« Non »", "« Non »"),
        ("el", "Γιατί τρεις καρδιές;", "Γιατί τρεις καρδιές;"),
        ("zh", "「心脏」", "「心脏」"),
        ("ar", "لماذا؟", "لماذا؟"),
    ],
)
def test_what_a_model_wrote_stays_unless_it_breaks_off_or_a_mark_hangs(language: str, written: str, shown: str) -> None:
    assert headline(written, 80, language) == shown


@pytest.mark.parametrize(
    ("text", "most", "short"),
    [
        ("Why octopuses have three hearts", 100, "Why octopuses have three hearts"),
        ("Blue blood. Three hearts. Nine brains", 30, "Blue blood. Three hearts."),
        ("The strange and wonderful inner life of the", 100, "The strange and wonderful inner life…"),
        ("The strange and wonderful inner life of the common octopus", 45, "The strange and wonderful inner life…"),
        ("The strange, quiet, wonderful life of octopuses", 12, "The strange…"),
        ("x" * 50, 20, "x" * 19 + ELLIPSIS),
        ("Read it\n\nand that, too", 14, "Read it…"),
    ],
)
def test_a_title_that_is_too_long_ends_with_a_whole_phrase_or_admits_its_cut(text: str, most: int, short: str) -> None:
    assert shortened(text, most, "en") == short


def test_a_measure_of_its_own_is_kept_to() -> None:
    assert shortened("\N{ROCKET}" * 9, 9, "en", size=lambda text: len(text.encode("utf-16-le")) // 2) == "\N{ROCKET}" * 4 + ELLIPSIS
    assert cells("心脏ab") == 6


TEXTS = st.text(max_size=120) | st.lists(
    st.sampled_from(
        [
            "the",
            "while",
            "because",
            "and",
            "it",
            "stops",
            "hearts",
            "blood,",
            "swims.",
            "—",
            ";",
            "not",
            "Dr.",
            "“deep”",
            "🐙",
            "心脏",
            "y",
            "que",
        ]
    ),
    max_size=30,
).map(" ".join)
LANGUAGES = st.sampled_from([*WORDS, "", "ja", "th", "zh-Hant", "xx", "en-US"])


@example("0㐀:THE", 80, "en")
@given(TEXTS, st.integers(1, 80), LANGUAGES)
def test_any_headline_fits_is_whole_and_says_nothing_new(text: str, most: int, language: str) -> None:
    shown = headline(text, most, language)
    assert cells(shown) <= most
    assert shown in text
    assert shown == trimmed(shown)
    assert not breaks_off(shown, language) or " " not in shown  # without a space there is no earlier end
    assert not shown.endswith((",", ";", ":", "—", "–")) or language == "el" or any("\u0370" <= c <= "\u03ff" for c in shown)


@given(TEXTS, st.integers(2, 80), LANGUAGES)
def test_any_text_is_shortened_within_its_limit_and_between_letters(text: str, most: int, language: str) -> None:
    short = shortened(text, most, language)
    assert len(short) <= most
    assert short == text or text.startswith(short.removesuffix(ELLIPSIS))
    kept = graphemes(short.removesuffix(ELLIPSIS))
    assert kept == graphemes(text)[: len(kept)]
    assert whole(text, most, language) in text
