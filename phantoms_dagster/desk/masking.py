"""Masks secrets in provider answers and database rows before a page or the API shows them."""

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
# Names of fields that hold a secret, or a URL that works without one.
_SECRET = re.compile(
    r"token|secret|password|authorization|cookie|signature|credential|api[-_]?key|session|upload_?url|upload_?uri", re.IGNORECASE
)
_QUERY = re.compile(r"(https?://[^\s?\"']+)\?[^\s\"']+")
_CREDENTIALS = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+")


def masked(value: Any) -> Any:
    """Return the value with secret fields and URL query strings masked, and redacted as in logs and evidence."""
    if isinstance(value, Mapping):
        return {name: MASKED if _SECRET.search(str(name)) and part else masked(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(part) for part in value]
    if isinstance(value, str):
        return _of_short(value) if len(value) <= KEPT_CHARACTERS else _of_text(value)
    return value


def _of_text(value: str) -> str:
    return redact(_CREDENTIALS.sub(rf"\1 {MASKED}", _QUERY.sub(rf"\1?{MASKED}", value)))


# The rows of a list repeat the same few reasons.
_of_short = lru_cache(maxsize=2_048)(_of_text)


def evidence_json(found: Mapping[str, Any]) -> str:
    """Return a provider's answer as indented, masked JSON, cut to EVIDENCE_CHARACTERS. A JSON body is expanded."""
    body = found.get("body")
    try:
        whole = {**found, "body": json.loads(body)} if isinstance(body, str) else found
    except ValueError:
        whole = found
    return json.dumps(masked(whole), indent=1, default=str, ensure_ascii=False)[:EVIDENCE_CHARACTERS]
