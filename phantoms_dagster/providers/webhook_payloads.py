"""The body of a webhook. A module of its own, because the desk shows bodies and needs no HTTP client for that."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from phantoms_dagster.domain.webhooks import body as body_of
from phantoms_dagster.providers.redaction import redact


def payload(kind: str, at: datetime, data: dict[str, Any], desk_url: str) -> str:
    """The JSON body for an event. Secrets are removed, in case a provider's message contained one."""
    return body_of(kind, at, {name: _without_secrets(part) for name, part in data.items()}, desk_url)


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: _without_secrets(part) for name, part in value.items()}
    return [_without_secrets(part) for part in value] if isinstance(value, list) else value
