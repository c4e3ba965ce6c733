"""Splits text into sentences by the rules of its language. Voice and captions both use it."""

from __future__ import annotations

import regex

from phantoms_dagster.domain.text import speakable

# Abbreviations that precede a number inside a sentence. sentencex already knows those that precede names.
_BEFORE_NUMBERS = regex.compile(
    r"(?<![\p{L}\p{N}])(?:approx|appr|est|max|min|avg|cc?a|cf|n[or]s?|figs?|ch|chap|pp?|vols?|arts?|secs?|par|tel|ext|"
    r"jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\.\s*$",
    regex.IGNORECASE,
)
_SMALL = regex.compile(r"^\s*\p{Ll}")
_CLOSING = regex.compile(r"^\s*[\p{Pe}\p{Pf}]")
_DIGIT = regex.compile(r"^\s*\p{N}")
_FALLBACK = "en"


def split(text: str, language: str) -> list[str]:
    """All sentences of `text`, in order. `language` is a BCP 47 tag.

    Every sentence has a word that can be spoken: a part without one (`★★★`, `!?`) stays with its neighbour. The only exception is
    a text without any such word, which comes back as one sentence.
    """
    from sentencex import segment  # noqa: PLC0415  a native library that most processes do not need

    found: list[str] = []
    for part in segment(language.split("-", maxsplit=1)[0].split("_", maxsplit=1)[0].lower() or _FALLBACK, text):
        if found and (_continues(found[-1], part) or not speakable(part) or not speakable(found[-1])):
            found[-1] += part
        elif part.strip():
            found.append(part)
    return [" ".join(sentence.split()) for sentence in found]


def _continues(before: str, part: str) -> bool:
    if _CLOSING.match(part):
        return True
    if _SMALL.match(part):
        return not before.rstrip().endswith(("!", "?"))
    return bool(_DIGIT.match(part) and _BEFORE_NUMBERS.search(before))
