"""Converts rows to one JSON parameter, so that one statement can write many."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

# Python cannot write deeper nesting than its stack allows, or numbers of more than 4,300 digits. PostgreSQL accepts a little more.
MOST_DEPTH = 200
MOST_DIGITS = 1_000
_REPLACEMENT = "\ufffd"
_TOO_DEEP = "(nested too deeply)"


def as_json(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a JSON array that PostgreSQL can store.

    Providers may answer anything. A jsonb cannot store NUL, half a surrogate pair, NaN or infinity, and one such value would fail
    the commit of all videos in the batch. Such values are replaced by ones that can be stored.
    """
    return json_text(rows)


def json_text(value: Any) -> str:
    """One value as JSON that PostgreSQL can store."""
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError):  # NaN or infinity, too many digits, or too deeply nested
        written = json.dumps(_holdable(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if "\\u0000" in written:
        written = json.dumps(_holdable(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return written.encode("utf-8", "replace").decode("utf-8")


def _holdable(value: Any, depth: int = 0) -> Any:
    """The value with everything replaced that a jsonb cannot store."""
    match value:
        case str():
            return value.replace("\x00", _REPLACEMENT)
        case bool() | None:
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case int():
            return value if -(10**MOST_DIGITS) < value < 10**MOST_DIGITS else f"a number of more than {MOST_DIGITS} digits"
        case dict() if depth < MOST_DEPTH:
            return {_holdable(str(name)): _holdable(inner, depth + 1) for name, inner in value.items()}
        case list() | tuple() if depth < MOST_DEPTH:
            return [_holdable(inner, depth + 1) for inner in value]
        case dict() | list() | tuple():
            return _TOO_DEEP
        case _:
            return value
