"""Normalizes all text to NFC, and measures and searches it by graphemes, the characters that a reader sees.

`markup` strips Markdown, `sentences` splits text into sentences, `phrases` shortens it, `hashtags` parses hashtags.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from typing import Annotated

import regex
from pydantic import BeforeValidator

# Characters inside a word: letters, digits, the underscore, combining marks (without them `हिन्दी` falls apart), and the two joiners
# that shape letters in Persian and in the Indic scripts.
WORD_CHARACTER = r"[\p{L}\p{M}\p{N}_\u200c\u200d]"

_SPEAKABLE = regex.compile(r"[\p{L}\p{N}]")
_GEORGIAN, _GREEK = regex.compile(r"\p{Georgian}"), regex.compile(r"\p{Greek}")
_GRAPHEME = regex.compile(r"\X")
_CONTROL = regex.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE = regex.compile(r"[\ud800-\udfff]")
# These override the direction of the text after them, so that it reads differently from how it is written. U+200E and U+200F do
# not.
_TURNING = regex.compile(r"[\u202a-\u202e\u2066-\u2069]")


def nfc(text: str) -> str:
    """`text` with each accented letter as one character. macOS may write `é` as two, and both must be the same word."""
    return unicodedata.normalize("NFC", text)


def _nfc(value: object) -> object:
    return nfc(value) if isinstance(value, str) else value


# For fields that people write. Put it last in an annotation, so that limits count characters of the normal form.
NFC = BeforeValidator(_nfc)
Written = Annotated[str, NFC]


def graphemes(text: str) -> list[str]:
    """The graphemes of `text`, what a reader sees as one character: a letter with its marks, a family emoji, a flag."""
    if text.isascii() and "\r" not in text:
        return list(text)
    return _GRAPHEME.findall(text)


def without(text: str, parts: Collection[str]) -> str:
    """`text` on one line without those graphemes, and without lower-case letters whose capitals are among them."""
    if not parts:
        return text
    return " ".join("".join(part for part in graphemes(text) if part not in parts and part.upper() not in parts).split())


def capitals(text: str, language: str = "") -> str:
    """`text` in capitals by its language's rules: Turkish has two i, Greek capitals have no accents, Georgian has no capitals."""
    base = language[:2].lower()
    if base in ("tr", "az"):
        text = text.replace("i", "\u0130").replace("\u0131", "I")
    if text.isascii():
        return text.upper()
    raised = "".join(part if _GEORGIAN.search(part) else part.upper() for part in graphemes(text))
    if _GREEK.search(raised):
        raised = "".join(_unaccented(part) if _GREEK.search(part) else part for part in graphemes(raised))
    return raised


def _unaccented(letter: str) -> str:
    return nfc("".join(mark for mark in unicodedata.normalize("NFD", letter) if mark != "\u0301"))


def unfit(text: str) -> str | None:
    """Why the text is unsafe for a terminal, a database or a platform: it has an invisible character. None when it is fine."""
    if _SURROGATE.search(text):
        return "contains half of a character (an unpaired surrogate)"
    if (control := _CONTROL.search(text)) is not None:
        return f"contains the control character U+{ord(control[0]):04X}; remove it"
    if (turning := _TURNING.search(text)) is not None:
        return f"contains the invisible character U+{ord(turning[0]):04X}, which turns the direction of the text; remove it"
    return None


def speakable(text: str) -> bool:
    """Whether a voice can say anything of it: it has a letter of any script or a digit. `¿?` and emoji do not count."""
    return _SPEAKABLE.search(text) is not None


def has_word(text: str, word: str) -> bool:
    """Whether `word` occurs in `text` as a whole word, ignoring case (`STRASSE` equals `Straße`)."""
    pattern = rf"(?<!{WORD_CHARACTER}){regex.escape(nfc(word))}(?!{WORD_CHARACTER})"
    return regex.search(pattern, nfc(text), regex.IGNORECASE | regex.FULLCASE) is not None
