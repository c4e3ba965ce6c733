"""The one form of written text: NFC. And how text is measured and searched without splitting what a reader sees as one letter.

Stripping Markdown is `markup`, cutting into sentences `sentences`, shortening `phrases`, hashtags `hashtags`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from typing import Annotated

import regex
from pydantic import BeforeValidator

# What continues a word: letters, digits and the underscore, the marks that sit on letters (without them `हिन्दी` falls
# apart), and the two joiners that shape letters in Persian and in the Indic scripts.
WORD_CHARACTER = r"[\p{L}\p{M}\p{N}_\u200c\u200d]"

_SPEAKABLE = regex.compile(r"[\p{L}\p{N}]")
_GEORGIAN, _GREEK = regex.compile(r"\p{Georgian}"), regex.compile(r"\p{Greek}")
_GRAPHEME = regex.compile(r"\X")
_CONTROL = regex.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE = regex.compile(r"[\ud800-\udfff]")
# They turn the direction of what follows, so that a text reads otherwise than it is written. The marks U+200E and U+200F do not.
_TURNING = regex.compile(r"[\u202a-\u202e\u2066-\u2069]")


def nfc(text: str) -> str:
    """`text` with each accented letter as one character. A Mac types `é` as two, and both must be the same word."""
    return unicodedata.normalize("NFC", text)


def _nfc(value: object) -> object:
    return nfc(value) if isinstance(value, str) else value


# For fields with text that people write. It comes last in an annotation, so that limits count characters of the normal form.
NFC = BeforeValidator(_nfc)
Written = Annotated[str, NFC]


def graphemes(text: str) -> list[str]:
    """What a reader sees as single letters: a base with its marks, a family emoji, a flag."""
    if text.isascii() and "\r" not in text:
        return list(text)
    return _GRAPHEME.findall(text)


def without(text: str, parts: Collection[str]) -> str:
    """`text` on one line without those graphemes, and without the small letters of which they are the capitals."""
    if not parts:
        return text
    return " ".join("".join(part for part in graphemes(text) if part not in parts and part.upper() not in parts).split())


def capitals(text: str, language: str = "") -> str:
    """`text` in capitals as its language writes them: Turkish has two i, Greek capitals no accent, Georgian texts no capitals."""
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
    """Why no terminal, database or platform should get this text: a character that nobody sees. None when it is fine."""
    if _SURROGATE.search(text):
        return "contains half of a character (an unpaired surrogate)"
    if (control := _CONTROL.search(text)) is not None:
        return f"contains the control character U+{ord(control[0]):04X}; remove it"
    if (turning := _TURNING.search(text)) is not None:
        return f"contains the invisible character U+{ord(turning[0]):04X}, which turns the direction of the text; remove it"
    return None


def speakable(text: str) -> bool:
    """Whether there is anything to say: a letter of any script or a number. `¿?` and emoji are no words."""
    return _SPEAKABLE.search(text) is not None


def has_word(text: str, word: str) -> bool:
    """Whether `word` occurs in `text` as a whole word, whatever the case of either (`STRASSE` is `Straße`)."""
    pattern = rf"(?<!{WORD_CHARACTER}){regex.escape(nfc(word))}(?!{WORD_CHARACTER})"
    return regex.search(pattern, nfc(text), regex.IGNORECASE | regex.FULLCASE) is not None
