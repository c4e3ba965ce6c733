"""Which marks are shown with the words of a burned-in caption. A caption is a few words alone: a comma or a dash at its end hangs.

Marks that belong to a word stay: apostrophes, decimal points, signs of currency, a hyphen, `¿`, `¡`, `?`, `!`, a full stop, and
those of Chinese, Japanese and Arabic. Which words make a caption is the renderers' decision.
"""

# ruff: noqa: RUF001  marks of many scripts

from __future__ import annotations

from collections.abc import Sequence

import regex

# Nothing but punctuation, and not a sign that is read aloud (`&`, `%`, `#`, `@`, `*` between numbers, `§`).
_LONE = regex.compile(r"[\p{P}--[&%#@*§†‡/\\]]+", regex.V1)
_LONE_OPENING = regex.compile(r"[\p{Ps}\p{Pi}¿¡]+|[„»]")
_PER_CENT = regex.compile(r"[%‰]\W*")
# Without spaces: `hearts—two` are two words. `1914—1918` is one.
_DASHED = regex.compile(r"(?<=[^\W\d_][\p{Po}\p{Pf}\p{Pe}]?(?:—|―|--))(?=[\p{Pi}\p{Ps}\"']?[^\W\d_])")
_STRONG = regex.compile(r"(?:[;:؛；：]|[—―‒–]|--|(?<=\s)-)[\p{Pf}\p{Pe}\"'”“«»’]*$")
_GREEK = regex.compile(r"\p{Greek}")
_END = regex.compile(r"(?:[\s,;:·|\\/*_~•—―‒–]|--+|(?<=\s)-)+$")
_START = regex.compile(r"^(?:[\s,;:·|\\/*_~•—―‒–]|--+|-(?=\s))+(?=\S)")
_NUMBER_AFTER_TILDE = regex.compile(r"^~(?=\d)")

# CJK brackets are not here: they are as wide as a letter and part of the line.
_PAIRS = {"“": "”“", "„": "“”", "”": "”", "«": "»", "»": "«»", "‹": "›", "›": "‹", "(": ")", "[": "]", "{": "}", '"': '"'}
_SINGLE = {"‘": "’‘", "‚": "‘’", "'": "'", "’": "’"}
_EVERY = {**_PAIRS, **_SINGLE}
_PAIRED = frozenset("".join((*_PAIRS, *_PAIRS.values())))
_SINGLES = frozenset("'’‘‚")
_TAIL = regex.compile(r"[\p{P}\p{S}]*$")
_HEAD = regex.compile(r"^[\p{P}\p{S}]*")


def pieces(word: str) -> list[str]:
    """A word in the parts that are read one after the other: a long dash between two words parts them."""
    return _DASHED.split(word)


def attached(words: Sequence[str]) -> list[str]:
    """The words of a sentence in which no mark stands alone: `Quoi ?` and `three —` are one word each, as `« Non` is."""
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
    """Whether the sentence goes on with another thought behind `word`: what follows should not be shown beside it."""
    return bool(_STRONG.search(word)) and not (word.endswith(";") and _GREEK.search(word))


def quotes(words: Sequence[str]) -> list[bool]:
    """For each word of a sentence whether its single quotes are quotation marks, and not apostrophes as in `'tis` or `dogs'`."""
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
    """The words of one caption as they are shown. `quoted` is what `quotes` says of each of them.

    A quote or bracket stays where its other half stands in the same caption. Words in the middle keep their commas.
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
    """The last word without marks that hang: behind it, and before a quote or bracket that closes there."""
    cut = _END.sub("", last)
    body = cut.rstrip("”“»«›‹)]}\"'’")
    closing = cut[len(body) :]
    return (_END.sub("", body) + closing) if closing and body else cut


def _without_half_pairs(words: Sequence[str], quoted: Sequence[bool]) -> list[str]:
    """Without the halves of pairs at the ends of words whose other half is not among these words."""
    if not any(quoted) and _PAIRED.isdisjoint("".join(words)):
        return [word.strip() for word in words]
    places: list[tuple[int, int, str]] = []  # word, position, mark
    for number, word in enumerate(words):
        pairs = _EVERY if quoted[number] else _PAIRS
        marks = {*pairs, *"".join(pairs.values())}
        head, tail = _HEAD.search(word), _TAIL.search(word)
        head_end = head.end() if head else 0
        tail_start = max(tail.start() if tail else len(word), head_end)
        inside = [at for at in range(head_end, tail_start) if word[at] in "()[]{}"]
        ends = [at for at in (*range(head_end), *range(tail_start, len(word))) if word[at] in marks]
        places += [(number, at, word[at]) for at in sorted({*inside, *ends})]
    open_: list[tuple[int, int, str]] = []
    matched: set[tuple[int, int]] = set()
    for place in places:
        number, at, mark = place
        partner = next((p for p in reversed(open_) if mark in _EVERY.get(p[2], "")), None)
        if partner is not None:
            matched |= {(number, at), partner[:2]}
            del open_[open_.index(partner) :]
        elif mark in _EVERY:
            open_.append(place)
    gone = {(number, at) for number, at, _ in places} - matched
    gone -= {(n, at) for n, at in gone if _belongs(words[n], at)}
    return ["".join(c for at, c in enumerate(word) if (n, at) not in gone).strip() for n, word in enumerate(words)]


def _belongs(word: str, at: int) -> bool:
    """Whether the mark is part of its word: inches behind a number, a bracket inside, a smile."""
    if word[at] == '"':
        return word[at - 1 : at].isdigit()
    inside = any(c.isalnum() for c in word[:at]) and any(c.isalnum() for c in word[at + 1 :])
    return inside or not any(c.isalnum() for c in word)


def _open(words: Sequence[str], mark: str) -> bool:
    """Whether `mark`, which opens in one language and closes in another, closes here."""
    text = " ".join(words)
    partners = [opening for opening, closing in _PAIRS.items() if mark in closing]
    return any(text.count(partner) > sum(text.count(c) for c in set(_PAIRS[partner]) - {partner}) for partner in partners)
