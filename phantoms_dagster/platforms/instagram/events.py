"""Meta's webhooks: a GET handshake, and `X-Hub-Signature-256: sha256=<HMAC-SHA256 of the body with the app secret>`.

Meta has no event for a reel that is published. An event only says on which account something happened, so the open posts of that
account are looked at. There is no time in the signature. A replay is a duplicate, and a later one at worst causes a read.
Source: Meta for Developers, "Webhooks: Getting started".
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence

from phantoms_dagster.domain.provider_events import Delivery, EventSecrets, NotAuthentic, ProviderEvent, matches, read_json

SIGNATURE = "x-hub-signature-256"
_CHALLENGE = re.compile(r"[\w.-]{1,200}", re.ASCII)


def handshake(query: Mapping[str, str], secrets: EventSecrets) -> str:
    """The answer to Meta's check of the address. Raises NotAuthentic."""
    given = query.get("hub.verify_token", "")
    known = any(hmac.compare_digest(token.encode(), given.encode()) for token in secrets.settings("verify_token"))
    challenge = query.get("hub.challenge", "")
    if query.get("hub.mode") != "subscribe" or not known or not _CHALLENGE.fullmatch(challenge):
        raise NotAuthentic("the verify token is not PHANTOMS_INSTAGRAM_VERIFY_TOKEN")
    return challenge


def read_events(delivery: Delivery, secrets: EventSecrets) -> Sequence[ProviderEvent]:
    """See `provider_events.EventReader`. One event for each account."""
    scheme, _, given = delivery.headers.get(SIGNATURE, "").partition("=")
    # Instagram Login signs with the Instagram app's secret, Facebook Login with the Meta app's.
    if scheme != "sha256" or not matches(delivery.body, given, secrets.settings("app_secret", "client_secret")):
        raise NotAuthentic("the signature is not made with PHANTOMS_INSTAGRAM_APP_SECRET or PHANTOMS_INSTAGRAM_CLIENT_SECRET")
    try:
        told = read_json(delivery.body)
        accounts = [entry["id"] for entry in told["entry"]] if told["object"] == "instagram" else []
    except (ValueError, KeyError, TypeError):
        return ()  # signed by Meta, but about something else
    return tuple(ProviderEvent("instagram", subject=account) for account in accounts if isinstance(account, str) and account)
