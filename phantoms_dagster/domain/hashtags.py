"""Hashtags: one value and one parser for channels, scripts, captions and platforms.

A hashtag is `#` and a word as Unicode defines it: letters of any script with their marks, digits and underscores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Self

import regex
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from phantoms_dagster.domain.text import WORD_CHARACTER, nfc

MAX_CHARACTERS = 100

_SIGNS = "#＃"  # noqa: RUF001  the full-width sign is what Japanese keyboards type
_WORD = regex.compile(r"[\p{L}\p{N}_]" + WORD_CHARACTER + "*")
_NO_WORD = regex.compile(WORD_CHARACTER.replace("[", "[^", 1) + "+")
_IN_TEXT = regex.compile(rf"(?<!{WORD_CHARACTER}|[{_SIGNS}&])[{_SIGNS}](?P<word>[\p{{L}}\p{{N}}_]{WORD_CHARACTER}*)")

HASHTAG = _IN_TEXT
# An Instagram name: letters, digits, underscores, and full stops inside it. An e-mail address is not a mention.
MENTION = regex.compile(rf"(?<!{WORD_CHARACTER}|[@.])[@＠](?P<word>\w(?:[\w.]{{0,28}}\w)?)", regex.ASCII)  # noqa: RUF001


class Hashtag(str):
    """`#word` in NFC. Two hashtags that differ only in case are the same: compare their `key`."""

    __slots__ = ()

    def __new__(cls, written: str) -> Self:
        """Parse what a person wrote, with or without the sign. Raises ValueError, which names the input and the right form."""
        if not isinstance(written, str):
            raise ValueError(f"{written!r} should be text such as '#ocean', in quotes")
        word = nfc(written.strip())
        if word[:1] in _SIGNS and word:
            word = word[1:]
        if not _WORD.fullmatch(word):
            raise ValueError(_problem(written, word))
        if len(word) > MAX_CHARACTERS:
            raise ValueError(f"{written[:40]!r}… has {len(word)} characters; a hashtag has at most {MAX_CHARACTERS}")
        return super().__new__(cls, f"#{word}")

    @property
    def key(self) -> str:
        """The form in which all spellings of a hashtag are equal."""
        return nfc(self.casefold())

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        """Parsed from text, written as text."""
        return core_schema.no_info_before_validator_function(
            _parsed, core_schema.is_instance_schema(cls), serialization=core_schema.to_string_ser_schema()
        )


def _parsed(written: Any) -> Hashtag:
    return _known(written) if isinstance(written, str) else Hashtag(written)


# A channel's hashtags are parsed over a hundred times until one of its videos is posted. Without the cache each time costs 7 µs.
@lru_cache(maxsize=4096)
def _known(written: str) -> Hashtag:
    return Hashtag(written)


def unique(hashtags: Iterable[Hashtag]) -> tuple[Hashtag, ...]:
    """Each hashtag once, in its first spelling."""
    kept: dict[str, Hashtag] = {}
    for tag in hashtags:
        kept.setdefault(tag.key, tag)
    return tuple(kept.values())


def in_text(text: str) -> tuple[Hashtag, ...]:
    """The hashtags that a platform finds in `text`, in order, including repetitions."""
    return tuple(Hashtag(match["word"][:MAX_CHARACTERS]) for match in _IN_TEXT.finditer(nfc(text)))


def mentions(text: str) -> tuple[str, ...]:
    """The mentions that a platform finds in `text`, as `@name`, in order, including repetitions."""
    return tuple(f"@{match['word']}" for match in MENTION.finditer(nfc(text)))


def without_signs(text: str, kind: regex.Pattern[str], most: int) -> tuple[str, list[str]]:
    """Keep the first `most` hashtags or mentions and turn the others into plain words. Returns the text and the others.

    `kind` is `HASHTAG` or `MENTION`.
    """
    text = nfc(text)
    found = list(kind.finditer(text))[most:]
    for match in reversed(found):
        text = text[: match.start()] + match["word"] + text[match.end() :]
    return text, [match.group() for match in found]


def repaired(written: str) -> tuple[Hashtag, ...]:
    """The hashtags that a model meant: `Deep sea!` is one, `#x#y` are two, `#🐙` is none. Too long ones are left out."""
    words = (_NO_WORD.sub("", part) for part in regex.split(f"[{_SIGNS}]", nfc(written)))
    found = (match[0] for word in words if (match := _WORD.search(word)))
    return tuple(Hashtag(word) for word in found if len(word) <= MAX_CHARACTERS)


def _problem(written: str, word: str) -> str:
    shown = repr(written[:60])
    if not word:
        return f"{shown} is an empty hashtag; write a word such as '#ocean', or remove it"
    meant: Sequence[str] = repaired(written)
    if not meant:
        return f"{shown} has no letter or digit; a hashtag is a word such as '#ocean'"
    if len(meant) > 1:
        return f"{shown} is more than one hashtag; list them one by one: {', '.join(repr(str(tag)) for tag in meant)}"
    what = "a space" if regex.search(r"\s", word) else "a character that ends a hashtag"
    return f"{shown} has {what} in it; write {str(meant[0])!r}"
