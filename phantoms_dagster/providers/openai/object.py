"""The JSON object in what a model wrote: bare, in a code fence, with prose around it, or after its thoughts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

# Models that think aloud in the content: some templates write the opening tag themselves, so that only the closing one arrives.
_THOUGHTS = re.compile(r"<(think|thinking|thought|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_END_OF_THOUGHTS = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
MOST_OBJECTS = 50


def without_thoughts(text: str) -> str:
    """The text without the model's thoughts, as far as they can be told from its answer."""
    text = _THOUGHTS.sub("", text)
    ends = list(_END_OF_THOUGHTS.finditer(text))
    return text[ends[-1].end() :] if ends else text


def object_in(text: str, *, key: str) -> dict[str, Any] | None:
    """The last object with that key; without any, the last object at all; None when the text has no object.

    The last one counts: drafts stand before the answer. Thoughts are looked at only when nothing is left without them.
    """
    for part in dict.fromkeys([without_thoughts(text), text]):
        found: list[dict[str, Any]] = list(_objects(part))
        wanted = [value for value in found if key in value]
        if found:
            return (wanted or found)[-1]
    return None


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The outermost objects in the text, in order; at most 50 places are tried, so that no text takes for ever."""
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
