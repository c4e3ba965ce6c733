"""Finds the JSON object in a model's text: bare, in a code fence, surrounded by prose, or after its reasoning."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

# Some models put their reasoning into the content. Some chat templates write the opening tag, so only the closing tag arrives.
_THOUGHTS = re.compile(r"<(think|thinking|thought|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_END_OF_THOUGHTS = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
MOST_OBJECTS = 50


def without_thoughts(text: str) -> str:
    """The text without the model's reasoning, as far as its tags mark it."""
    text = _THOUGHTS.sub("", text)
    ends = list(_END_OF_THOUGHTS.finditer(text))
    return text[ends[-1].end() :] if ends else text


def object_in(text: str, *, key: str) -> dict[str, Any] | None:
    """The last object that has `key`, else the last object, else None.

    The last one counts because drafts come before the answer. The reasoning is searched only when nothing is found outside it.
    """
    for part in dict.fromkeys([without_thoughts(text), text]):
        found: list[dict[str, Any]] = list(_objects(part))
        wanted = [value for value in found if key in value]
        if found:
            return (wanted or found)[-1]
    return None


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The outermost objects in the text, in order. At most 50 positions are tried, to bound the time."""
    decoder = json.JSONDecoder(strict=False)  # small models break lines inside strings
    at = text.find("{")
    for _ in range(MOST_OBJECTS):
        if at < 0:
            return
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            if isinstance(value, dict):
                yield value
        at = text.find("{", end)
