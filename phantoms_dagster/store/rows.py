"""Rows on their way to a statement: many at once, as one JSON parameter. What they say belongs to who writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

# An escaped NUL, unless its backslash is itself escaped.
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
_REPLACEMENT = "\\1\ufffd"


def as_json(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a JSON array that PostgreSQL can hold.

    Providers answer with anything. A jsonb holds neither NUL nor half a surrogate pair, and one such character would fail
    the commit of every video that shares it: they are replaced.
    """
    written = json.dumps(rows, ensure_ascii=False)
    if "\\u0000" in written:
        written = _NUL.sub(_REPLACEMENT, written)
    return written.encode("utf-8", "replace").decode("utf-8")
