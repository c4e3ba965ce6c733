"""What changed between two texts, word by word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from phantoms_dagster.domain.languages import UNSPACED, primary
from phantoms_dagster.domain.text import graphemes

Kind = Literal["same", "gone", "new"]
_SPACES = re.compile(r"(\s+)")


@dataclass(frozen=True)
class Piece:
    """A piece of text that is in both texts (same), only in the old one (gone), or only in the new one (new)."""

    kind: Kind
    text: str


def word_diff(old: str, new: str, language: str = "en") -> list[Piece]:
    """The pieces in reading order. `same` and `gone` pieces form the old text, `same` and `new` pieces the new one.

    Languages without spaces between words are compared letter by letter.
    """
    before, after = _words(old, language), _words(new, language)
    found: list[Piece] = []
    for tag, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "equal":
            found.append(Piece("same", "".join(before[a:b])))
            continue
        if b > a:
            found.append(Piece("gone", "".join(before[a:b])))
        if d > c:
            found.append(Piece("new", "".join(after[c:d])))
    return list(_joined(found))


def _words(text: str, language: str) -> list[str]:
    if primary(language) in UNSPACED:
        return graphemes(text)
    return [part for part in _SPACES.split(text) if part]


def _joined(pieces: list[Piece]) -> Iterator[Piece]:
    """Merge changes that only a space separates, so that `the red fox` to `a blue fox` is one change, not two."""
    gone, new = "", ""
    for number, piece in enumerate(pieces):
        changes = bool(gone or new) and number + 1 < len(pieces)
        if piece.kind == "gone":
            gone += piece.text
        elif piece.kind == "new":
            new += piece.text
        elif changes and piece.text.isspace():
            gone, new = gone + piece.text, new + piece.text
        else:
            yield from _change(gone, new)
            gone, new = "", ""
            yield piece
    yield from _change(gone, new)


def _change(gone: str, new: str) -> Iterator[Piece]:
    if gone:
        yield Piece("gone", gone)
    if new:
        yield Piece("new", new)
