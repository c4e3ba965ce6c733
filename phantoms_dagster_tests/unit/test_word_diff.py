"""Differences between texts, word by word."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantoms_dagster.domain.word_diff import Piece, word_diff


@pytest.mark.parametrize(
    ("old", "new", "language", "pieces"),
    [
        ("The sea is deep.", "The sea is very deep.", "en", [("same", "The sea is "), ("new", "very "), ("same", "deep.")]),
        ("a red fox ran", "a blue wolf ran", "en", [("same", "a "), ("gone", "red fox"), ("new", "blue wolf"), ("same", " ran")]),
        ("", "new", "en", [("new", "new")]),
        ("old", "", "en", [("gone", "old")]),
        ("same", "same", "en", [("same", "same")]),
        ("海は深い", "海は広い", "ja-JP", [("same", "海は"), ("gone", "深"), ("new", "広"), ("same", "い")]),
    ],
)
def test_added_and_removed_words_are_distinguished(old: str, new: str, language: str, pieces: list[tuple[str, str]]) -> None:
    assert word_diff(old, new, language) == [Piece(kind, text) for kind, text in pieces]  # type: ignore[arg-type]


@given(st.text("ab \n", max_size=30), st.text("ab \n", max_size=30))
def test_both_texts_can_be_read_from_the_pieces(old: str, new: str) -> None:
    pieces = word_diff(old, new)
    assert "".join(piece.text for piece in pieces if piece.kind != "new") == old
    assert "".join(piece.text for piece in pieces if piece.kind != "gone") == new
    assert all(one.kind != other.kind for one, other in pairwise(pieces))
