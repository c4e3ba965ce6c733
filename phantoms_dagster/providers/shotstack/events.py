"""Shotstack's callbacks. They are not signed: our own token in the callback's address shows to which order one belongs.

A render has two events, `edit` when it is rendered and `serve` when its file is hosted. Each may come more than once.
Source: Shotstack, "Webhooks".
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from urllib.parse import urlencode

from phantoms_dagster.domain.provider_events import Delivery, EventSecrets, NotAuthentic, ProviderEvent, read_json

ATTEMPT, TOKEN = "a", "s"
RENDER_IDS = {"edit": "id", "serve": "render"}


def callback_query(attempt_id: str, token: str) -> str:
    """The query of the callback's address for an order. `token`: `EventSecrets.token` of the attempt."""
    return urlencode({ATTEMPT: attempt_id, TOKEN: token})


def read_events(delivery: Delivery, secrets: EventSecrets) -> Sequence[ProviderEvent]:
    """See `provider_events.EventReader`. The render's id is only a hint. `ShotstackRenderer.find` confirms it."""
    attempt_id, given = delivery.query.get(ATTEMPT, ""), delivery.query.get(TOKEN, "")
    if not attempt_id or not hmac.compare_digest(secrets.token(attempt_id).encode(), given.encode()):
        raise NotAuthentic("the address does not have the token that it was given to Shotstack with")
    try:
        told = read_json(delivery.body)
        kind = told["type"]
        render_id = told[RENDER_IDS[kind]]
    except (ValueError, KeyError, TypeError):
        return ()
    if not isinstance(render_id, str) or not render_id:
        return ()
    return (ProviderEvent(kind, attempt_id=attempt_id, remote_id=render_id),)
