"""Text as it is spoken and shown: no markdown, no control characters. Splitting into captions belongs in `captions`."""

from __future__ import annotations

import re
import unicodedata

_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_FENCE = re.compile(r"^\s*(```|~~~).*$", re.MULTILINE)
_LINE_MARK = re.compile(r"^\s*(?:#{1,6}\s+|>\s+|[-*+]\s+)", re.MULTILINE)
# Emphasis needs a border outside of it, so that `snake_case` and `3*4*5` stay as they are.
_EMPHASIS = re.compile(r"(?<![\w*_~])(\*{1,3}|_{1,3}|~~)(?=\S)(.+?)(?<=\S)\1(?![\w*_~])", re.DOTALL)
_CODE = re.compile(r"`+([^`]*)`+")
_JOINERS = "\u200c\u200d"  # they shape letters (Persian, Hindi) and emoji


def plain_text(text: str) -> str:
    """`text` on one line, without markdown or HTML marks and without invisible characters. May be empty."""
    text = _FENCE.sub("", text)
    text = _LINK.sub(r"\1", text)
    text = _TAG.sub("", text)
    text = _LINE_MARK.sub("", text)
    text = _CODE.sub(r"\1", text)
    previous = None
    while previous != text:  # `**_both_**` needs a second look
        previous, text = text, _EMPHASIS.sub(r"\2", text)
    return " ".join("".join(map(_shown, text)).split())


def _shown(character: str) -> str:
    if character.isspace():
        return " "
    if character in _JOINERS:
        return character
    return "" if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") else character
