"""How alike two texts are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantoms_dagster.domain.near_duplicates import alike, bare_words

texts = st.text(alphabet="abc #.", max_size=40)


def percent(one: str, other: str) -> int:
    return alike(bare_words(one), bare_words(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The sea is deep", "the SEA is deep!"),
        ("The sea is deep", "  The — sea,\nis deep…"),
        ("The sea is deep #ocean #facts", "The sea is deep #fun"),
        ("The sea is deep", "Deep is the sea"),
        ("Stra\u00dfe", "STRASSE"),
        ("caf\u00e9", "cafe\u0301"),
        ("\uff34he sea", "The sea"),
        ("#ocean #facts", "#Ocean, #facts"),
    ],
)
def test_case_punctuation_hashtags_and_order_do_not_count(one: str, other: str) -> None:
    assert percent(one, other) == 100


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("one two three four", "one two three five", 75),
        ("one two three four five six seven eight nine ten", "one two three four five six seven eight nine", 94),
        ("sea sea sea", "sea", 50),
        ("Why octopuses have three hearts", "How honey stays good", 0),
        ("", "The sea", 0),
        ("!!!", "???", 0),
    ],
)
def test_the_share_of_words_that_both_have(one: str, other: str, expected: int) -> None:
    assert percent(one, other) == expected


@given(texts, texts)
def test_it_does_not_matter_which_text_comes_first(one: str, other: str) -> None:
    assert percent(one, other) == percent(other, one)
    assert 0 <= percent(one, other) <= 100


@given(texts.filter(lambda text: bool(bare_words(text))))
def test_a_text_is_wholly_like_itself(one: str) -> None:
    assert percent(one, one) == 100
