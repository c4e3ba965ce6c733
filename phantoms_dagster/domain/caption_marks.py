"""Which punctuation is shown in a burned-in caption.

A caption shows only a few words, so a comma or a dash at its end would dangle. Marks that are part of a word stay: apostrophes,
decimal points, currency signs, hyphens, `¿`, `¡`, `?`, `!`, full stops, and the marks of Chinese, Japanese and Arabic. The
renderers decide which words form a caption.
"""

# ruff: noqa: RUF001  marks of many scripts

from __future__ import annotations

from collections.abc import Sequence

import regex

# Only punctuation, except signs that are read aloud (`&`, `%`, `#`, `@`, `*` between numbers, `§`).
_LONE = regex.compile(r"[\p{P}--[&%#@*§†‡/\\]]+", regex.V1)
_LONE_OPENING = regex.compile(r"[\p{Ps}\p{Pi}¿¡]+|[„»]")
_PER_CENT = regex.compile(r"[%‰]\W*")
# A dash without spaces: `hearts—two` is two words, `1914—1918` is one.
_DASHED = regex.compile(r"(?<=[^\W\d_][\p{Po}\p{Pf}\p{Pe}]?(?:—|―|--))(?=[\p{Pi}\p{Ps}\"']?[^\W\d_])")
_STRONG = regex.compile(r"(?:[;:؛；：]|[—―‒–]|--|(?<=\s)-)[\p{Pf}\p{Pe}\"'”“«»’]*$")
_GREEK = regex.compile(r"\p{Greek}")
_END = regex.compile(r"(?:[\s,;:·|\\/*_~•—―‒–]|--+|(?<=\s)-)+$")
_START = regex.compile(r"^(?:[\s,;:·|\\/*_~•—―‒–]|--+|-(?=\s))+(?=\S)")
_NUMBER_AFTER_TILDE = regex.compile(r"^~(?=\d)")

# CJK brackets are left out, because they are as wide as a letter and part of the line.
_PAIRS = {"“": "”“", "„": "“”", "”": "”", "«": "»", "»": "«»", "‹": "›", "›": "‹", "(": ")", "[": "]", "{": "}", '"': '"'}
_SINGLE = {"‘": "’‘", "‚": "‘’", "'": "'", "’": "’"}
_EVERY = {**_PAIRS, **_SINGLE}
_PAIRED = frozenset("".join((*_PAIRS, *_PAIRS.values())))
_SINGLES = frozenset("'’‘‚")
_TAIL = regex.compile(r"[\p{P}\p{S}]*$")
_HEAD = regex.compile(r"^[\p{P}\p{S}]*")


def pieces(word: str) -> list[str]:
    """Split a word at a long dash between two words."""
    return _DASHED.split(word)


def attached(words: Sequence[str]) -> list[str]:
    """Attach lone marks to their words: `Quoi ?`, `three —` and `« Non` become one word each."""
    found: list[str] = []
    opening = ""
    for word in words:
        if _LONE.fullmatch(word) or _PER_CENT.fullmatch(word):
            opens = _LONE_OPENING.fullmatch(word) and not (word in "»“" and _open(found, word))
            if opens or not found:
                opening += f"{word} "
            else:
                found[-1] += f" {word}"
        else:
            found.append(opening + word)
            opening = ""
    if opening:
        found[-1:] = [" ".join([*found[-1:], opening.strip()])]
    return found


def ends_a_part(word: str) -> bool:
    """Whether `word` ends a part of the sentence, so that the next word should not be on the same line."""
    return bool(_STRONG.search(word)) and not (word.endswith(";") and _GREEK.search(word))


def quotes(words: Sequence[str]) -> list[bool]:
    """For each word of a sentence: whether its single quotes are quotation marks, not apostrophes as in `'tis` or `dogs'`."""
    found = [False] * len(words)
    if _SINGLES.isdisjoint("".join(words)):
        return found
    opened: int | None = None
    for number, word in enumerate(words):
        head, tail = _HEAD.search(word), _TAIL.search(word)
        if opened is None and head is not None and any(mark in head[0] for mark in "'‘‚"):
            opened = number
        if opened is not None and tail is not None and tail[0] != word and any(mark in tail[0] for mark in "'’‘"):
            found[opened] = found[number] = True
            opened = None
    return found


def shown(words: Sequence[str], quoted: Sequence[bool]) -> list[str]:
    """The words of one caption as they are shown. `quoted`: the result of `quotes` for these words.

    A quote or bracket stays when its other half is in the same caption. Words in the middle keep their commas.
    """
    kept = _without_half_pairs(words, quoted)
    if kept:
        first = kept[0]
        kept[0] = first if _NUMBER_AFTER_TILDE.search(first) else _START.sub("", first)
        last = kept[-1]
        if not (last.endswith(";") and _GREEK.search(last)):
            kept[-1] = _closed(last)
    return kept


def _closed(last: str) -> str:
    """The last word without dangling marks after it or before its closing quote or bracket."""
    cut = _END.sub("", last)
    body = cut.rstrip("”“»«›‹)]}\"'’")
    closing = cut[len(body) :]
    return (_END.sub("", body) + closing) if closing and body else cut


def _without_half_pairs(words: Sequence[str], quoted: Sequence[bool]) -> list[str]:
    """Remove quotes and brackets at the ends of words when their other half is not among these words."""
    if not any(quoted) and _PAIRED.isdisjoint("".join(words)):
        return [word.strip() for word in words]
    marks_at: list[tuple[int, int, str]] = []  # word, position, mark
    for number, word in enumerate(words):
        pairs = _EVERY if quoted[number] else _PAIRS
        marks = {*pairs, *"".join(pairs.values())}
        head, tail = _HEAD.search(word), _TAIL.search(word)
        head_end = head.end() if head else 0
        tail_start = max(tail.start() if tail else len(word), head_end)
        inside = [at for at in range(head_end, tail_start) if word[at] in "()[]{}"]
        ends = [at for at in (*range(head_end), *range(tail_start, len(word))) if word[at] in marks]
        marks_at += [(number, at, word[at]) for at in sorted({*inside, *ends})]
    open_: list[tuple[int, int, str]] = []
    matched: set[tuple[int, int]] = set()
    for found in marks_at:
        number, at, mark = found
        partner = next((p for p in reversed(open_) if mark in _EVERY.get(p[2], "")), None)
        if partner is not None:
            matched |= {(number, at), partner[:2]}
            del open_[open_.index(partner) :]
        elif mark in _EVERY:
            open_.append(found)
    gone = {(number, at) for number, at, _ in marks_at} - matched
    gone -= {(n, at) for n, at in gone if _belongs(words[n], at)}
    return ["".join(c for at, c in enumerate(word) if (n, at) not in gone).strip() for n, word in enumerate(words)]


def _belongs(word: str, at: int) -> bool:
    """Whether the mark is part of its word: inches after a number, a bracket inside a word, a smiley."""
    if word[at] == '"':
        return word[at - 1 : at].isdigit()
    inside = any(c.isalnum() for c in word[:at]) and any(c.isalnum() for c in word[at + 1 :])
    return inside or not any(c.isalnum() for c in word)


def _open(words: Sequence[str], mark: str) -> bool:
    """Whether `mark`, which opens a quote in one language and closes it in another, closes one here."""
    text = " ".join(words)
    partners = [opening for opening, closing in _PAIRS.items() if mark in closing]
    return any(text.count(partner) > sum(text.count(c) for c in set(_PAIRS[partner]) - {partner}) for partner in partners)
