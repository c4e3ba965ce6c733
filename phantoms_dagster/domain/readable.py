"""Stored JSON as words for a person: nested values of the audit log and of posts, without the marks of a programming language."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}[\d:.]*(?:Z|[+-]\d{2}:\d{2})")


def readable(value: object) -> str:
    """The value in words: `state booked, at 2026-12-24 18:00 UTC`. Fields without a value are left out."""
    if isinstance(value, Mapping):
        parts = [(str(name).replace("_", " "), readable(one)) for name, one in value.items() if one not in (None, "", [], {})]
        return ", ".join(f"{name} {said}" for name, said in parts)
    if isinstance(value, list | tuple):
        return ", ".join(readable(one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    text = str(value)
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M %Z}".replace("UTC+00:00", "UTC") if _MOMENT.fullmatch(text) else text
