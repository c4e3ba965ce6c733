"""Shortens headlines, titles and captions, in any language, so that they do not end in mid-phrase.

A text is cut at the end of a sentence, else at the end of a clause that makes sense on its own. If there is neither, a headline is
empty and its caller chooses another form. A title or a caption then ends with a whole word and an ellipsis.
"""

# ruff: noqa: RUF001  marks of many scripts

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Iterator

import regex

from phantoms_dagster.domain.function_words import WORDS, Words
from phantoms_dagster.domain.languages import primary
from phantoms_dagster.domain.sentences import split
from phantoms_dagster.domain.text import graphemes, speakable

Size = Callable[[str], int]
ELLIPSIS = "…"
FEWEST_WORDS = 3  # of a clause cut from its sentence; a whole sentence may be shorter

_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")
_LAST = regex.compile(r"\s+\S+$")
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
_GREEK = regex.compile(r"\p{Greek}")
_ENDED = regex.compile(r"[.!?…。！？؟।]\W*$")
# Marks between two clauses in any language. A comma alone proves nothing, because it also separates lists and asides.
_STRONG = regex.compile(r"\s*[;；؛](?=\s|$)|\s*[:：](?=\s)|(?<=\S)\s*[—―](?=\s*\S)|(?<=\S)\s+[–-]{1,2}(?=\s)|[；：]")
_TAGGED = regex.compile(r"[#@＃＠]\S*$")
_COMMA = r"\s*[,،]\s+"
_COMMA_SIGN = regex.compile(r"[,،、，]")
# Marks that must not end a text shown on its own. To Unicode, a Greek question mark is a semicolon.
_HANGING_END = regex.compile(r"(?:[\s,;:،؛、，；：/|\\~*_·•—–‒―-]|[\p{Ps}¿¡])+$")
_HANGING_START = regex.compile(r"^(?:[\s,;:،؛、，；：/|\\*_·•—–‒―\p{Pe}]|-(?=\s)|\.(?![\d\p{L}.]))+")
# The marks that close each opening mark. German and Swedish quotes end with marks that open quotes elsewhere.
_PAIRS = {
    "“": "”",
    "„": "“”",
    "”": "”",
    "«": "»",
    "»": "«»",
    "‹": "›",
    "›": "‹",
    "「": "」",
    "『": "』",
    "(": ")",
    "[": "]",
    "{": "}",
    "（": "）",
    "《": "》",
}
_FALLBACK = "en"


def cells(text: str) -> int:
    """The width of a text in Latin letters. A Chinese, Japanese or Korean character counts as two."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def whole(text: str, most: int, language: str, *, size: Size = len) -> str:
    """The longest beginning of `text` within `most` that is whole sentences, or else one clause that makes sense alone; else empty.

    `language` is a BCP 47 tag. `size` measures a text. The result claims no more than `text` does.
    """
    if size(text) <= most and not breaks_off(text, language):
        return text
    for end in _sentence_ends(text, language):
        kept = text[:end].rstrip()
        if size(kept) <= most and speakable(kept) and kept != text.rstrip():
            return kept
    sentence = text[: min(_sentence_ends(text, language), default=len(text))]
    for end in sorted(set(_clause_ends(sentence, language)), reverse=True):
        kept = _HANGING_END.sub("", sentence[:end])
        if size(kept) <= most and _stands_alone(kept, language):
            return kept
    return ""


def headline(text: str, most: int, language: str, *, size: Size = cells) -> str:
    """`text` as a headline: a complete phrase within `most`, without dangling marks; empty when that is impossible."""
    return trimmed(whole(trimmed(text), most, language, size=size))


def shortened(text: str, most: int, language: str, *, size: Size = len) -> str:
    """Shorten `text` to `most`: to whole sentences if they use a third of the space, else to a whole word and an ellipsis.

    A text within `most` is changed only when it ends in mid-phrase.
    """
    if size(text) <= most and not breaks_off(text, language):
        return text
    kept = whole(text, most, language, size=size)
    if kept and 3 * size(kept) >= min(most, size(text)):
        return kept
    return _up_to_a_word(text, most, language, size) or kept


def breaks_off(text: str, language: str) -> bool:
    """Whether `text` ends in mid-phrase: with a word that never ends one, such as "while" or "the", and without a final mark."""
    if _ENDED.search(text) or _TAGGED.search(text):
        return False
    return len(_WORD.findall(text)) > 1 and _last_word(text) in _words(language).never


def binds_to_next(word: str, language: str) -> float:
    """How strongly `word` needs the next one: 1 for an article or a conjunction, less for a preposition, 0 for most words."""
    words, last = _words(language), _last_word(word)
    return 1.0 if last in words.never else 0.4 if last in words.rarely else 0.0


def trimmed(text: str) -> str:
    """`text` without dangling marks at its ends: commas, semicolons, colons, dashes, half a pair of quotes or brackets."""
    before = None
    while text != before:
        before = text
        text = _HANGING_START.sub("", text).strip()
        if not (text.endswith(";") and _GREEK.search(text)):
            text = _HANGING_END.sub("", text).strip()
        text = _without_half_a_pair(text)
    return text


# --- where a text may end -------------------------------------------------------------------------------------------------------


def _sentence_ends(text: str, language: str) -> list[int]:
    """The positions where sentences end, the last first."""
    ends, done, at = [], 0, 0
    counts = []
    for sentence in split(text, language):
        done += len("".join(sentence.split()))
        counts.append(done)
    seen = 0
    for at, character in enumerate(text):
        if not character.isspace():
            seen += 1
            if counts and seen == counts[0]:
                ends.append(at + 1)
                counts.pop(0)
    return ends[::-1]


def _clause_ends(sentence: str, language: str) -> Iterator[int]:
    """Yield the positions where a clause of one sentence ends: at a strong mark, or before words that begin an optional part."""
    for found in _STRONG.finditer(sentence):
        if not (found[0].strip() == ";" and _GREEK.search(sentence)):
            yield found.start()
    for pattern, behind_comma in _patterns(primary(language) or _FALLBACK):
        for found in pattern.finditer(sentence):
            before = sentence[: found.start()]
            if behind_comma and _COMMA_SIGN.search(before):
                continue  # a list, or an aside that this comma closes
            yield found.start()


@functools.lru_cache(maxsize=32)
def _patterns(language: str) -> tuple[tuple[regex.Pattern[str], bool], ...]:
    words = _words(language)

    def either(options: tuple[str, ...]) -> str:
        # An elided word (`parce qu'il`) is followed by no space.
        return "|".join(regex.escape(option) + ("" if option.endswith("'") else r"(?![\p{L}\p{M}\p{N}])") for option in options)

    found: list[tuple[str, bool]] = []
    if words.loose:
        found.append((rf"(?:{_COMMA}|\s+)(?:{either(words.loose)})", False))
    if words.after_comma:
        found.append((rf"{_COMMA}(?:{either(words.after_comma)})", True))
    if words.joining:
        subjects = either(tuple(sorted(words.subjects)))
        found.append((rf"{_COMMA}(?:{either(words.joining)})\s+(?:{subjects})", True))
    return tuple((regex.compile(pattern, regex.IGNORECASE), comma) for pattern, comma in found)


def _stands_alone(clause: str, language: str) -> bool:
    """Whether a clause cut from its sentence makes sense alone and does not say the opposite without the rest."""
    if _UNSPACED.search(clause):
        return len(graphemes(clause)) >= 2 * FEWEST_WORDS
    spoken = [word.casefold() for word in _WORD.findall(clause)]
    words = _words(language)
    if len(spoken) < FEWEST_WORDS or spoken[-1] in words.never | words.rarely | words.narrowing:
        return False
    if spoken[0] in words.leaning and not _COMMA_SIGN.search(clause):
        return False
    return not words.negations.intersection(spoken) and not regex.search(r"n['’]t\b", clause, regex.IGNORECASE)


def _up_to_a_word(text: str, most: int, language: str, size: Size) -> str:
    room = most - size(ELLIPSIS)
    letters = graphemes(text)
    low, high = 0, len(letters)
    while low < high:  # the longest beginning that fits
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size("".join(letters[:middle])) <= room else (low, middle - 1)
    kept = "".join(letters[:low])
    inside = low < len(letters) and not regex.match(r"[\s\p{P}]", letters[low]) and not kept[-1:].isspace()
    if inside and not _UNSPACED.search(kept[-1:]):
        end = max(kept.rfind(" "), kept.rfind("\n"))
        kept = kept[:end] if end > 0 else kept  # one endless word is cut between letters
    kept = _HANGING_END.sub("", kept)
    words = _words(language)
    while (shorter := _LAST.sub("", kept)) != kept and _last_word(kept) in words.never | words.rarely:
        kept = _HANGING_END.sub("", shorter)
    return f"{_HANGING_END.sub('', kept)}{ELLIPSIS}"


# --- words and marks ------------------------------------------------------------------------------------------------------------


def _words(language: str) -> Words:
    return WORDS.get(primary(language) or _FALLBACK, _NO_WORDS)


_NO_WORDS = Words(never=frozenset(), rarely=frozenset())


def _last_word(text: str) -> str:
    found = _WORD.findall(text)
    return found[-1].casefold() if found else ""


def _without_half_a_pair(text: str) -> str:
    """Remove a quote or bracket at one end whose other half is not in the text. An apostrophe stays."""
    first, last = text[:1], text[-1:]
    if first in _PAIRS and not any(mark in text[1:] for mark in _PAIRS[first]):
        return text[1:]
    if last and first != last and any(last in closing for closing in _PAIRS.values()):
        opening = [mark for mark, closing in _PAIRS.items() if last in closing]
        if not any(mark in text[:-1] for mark in opening):
            return text[:-1]
    if text.count('"') == 1 and (first == '"' or (last == '"' and not text[-2:-1].isdigit())):
        return text.strip('"')
    return text
