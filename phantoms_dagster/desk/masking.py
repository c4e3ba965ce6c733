"""What pages show of what providers said and of rows as they are: without anything that would open something."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from phantoms_dagster.providers.redaction import redact

MASKED = "***"
EVIDENCE_CHARACTERS = 4_000
KEPT_CHARACTERS = 300
# Names of fields that hold a secret, or an address that works without one.
_SECRET = re.compile(
    r"token|secret|password|authorization|cookie|signature|credential|api[-_]?key|session|upload_?url|upload_?uri", re.IGNORECASE
)
_QUERY = re.compile(r"(https?://[^\s?\"']+)\?[^\s\"']+")
_CREDENTIALS = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+")


def masked(value: Any) -> Any:
    """The same without secret fields, the parameters of addresses, and what logs and evidence leave out."""
    if isinstance(value, Mapping):
        return {name: MASKED if _SECRET.search(str(name)) and part else masked(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(part) for part in value]
    if isinstance(value, str):
        return _of_short(value) if len(value) <= KEPT_CHARACTERS else _of_text(value)
    return value


def _of_text(value: str) -> str:
    return redact(_CREDENTIALS.sub(rf"\1 {MASKED}", _QUERY.sub(rf"\1?{MASKED}", value)))


# A list repeats the same few reasons in each of its rows.
_of_short = lru_cache(maxsize=2_048)(_of_text)


def laid_out(found: Mapping[str, Any]) -> str:
    """What a provider answered, as masked JSON for people. A body that is JSON itself is laid out, too."""
    body = found.get("body")
    try:
        whole = {**found, "body": json.loads(body)} if isinstance(body, str) else found
    except ValueError:
        whole = found
    return json.dumps(masked(whole), indent=1, default=str, ensure_ascii=False)[:EVIDENCE_CHARACTERS]
