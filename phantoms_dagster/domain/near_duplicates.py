"""How alike the words of two posts are. Pure functions; `store.near_duplicates` compares posts."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping

_HASHTAG = re.compile(r"[#\uff03][\w-]+")
_WORD = re.compile(r"[^\W_]+")
Words = Mapping[str, int]


def bare_words(text: str) -> Words:
    """How often each word occurs, without case, accents' spelling, punctuation and hashtags.

    A text of hashtags alone has them as its words.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    return Counter(_WORD.findall(_HASHTAG.sub(" ", plain)) or _WORD.findall(plain))


def alike(one: Words, other: Words) -> int:
    """How much of the words both texts have, in per cent, rounded down. The order of the words does not matter.

    100 if both have the same words equally often, 0 if they have no word in common or one has none at all.
    """
    total = sum(one.values()) + sum(other.values())
    if not one or not other:
        return 0
    shared = sum(min(count, other.get(word, 0)) for word, count in one.items())
    return 200 * shared // total
