"""TikTok's webhooks: `TikTok-Signature: t=<seconds>,s=<HMAC-SHA256 of "t.body" with the client secret>`.

TikTok delivers at least once and tries again for 72 hours. Source: TikTok for Developers, "Webhooks overview" and "Verification".
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from phantoms_dagster.domain.provider_events import Delivery, EventSecrets, NotAuthentic, ProviderEvent, matches, read_json

SIGNATURE = "tiktok-signature"
# TikTok does not say whether a repeated delivery is signed again. An older one is refused as a replay. A younger replay is a
# duplicate, because events are kept for longer than this.
OLDEST = timedelta(hours=73)
# TikTok's clock may be ahead of ours.
AHEAD = timedelta(minutes=65)
POSTS = "post.publish."


def read_events(delivery: Delivery, secrets: EventSecrets) -> Sequence[ProviderEvent]:
    """See `provider_events.EventReader`. Only events about posts matter."""
    parts = dict(part.strip().partition("=")[::2] for part in delivery.headers.get(SIGNATURE, "").split(","))
    stamp, given = parts.get("t", ""), parts.get("s", "")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12 and given):
        raise NotAuthentic("the delivery has no TikTok-Signature")
    if not matches(stamp.encode() + b"." + delivery.body, given, secrets.settings("client_secret")):
        raise NotAuthentic("the signature is not made with PHANTOMS_TIKTOK_CLIENT_SECRET")
    age = timedelta(seconds=delivery.at.timestamp() - int(stamp))
    if not -AHEAD <= age <= OLDEST:
        raise NotAuthentic(f"the delivery was signed {age} ago")
    return _events(delivery.body)


def _events(body: bytes) -> Sequence[ProviderEvent]:
    try:
        told = read_json(body)
        kind, content = str(told["event"]), read_json(told["content"])
        publish_id = content["publish_id"]
    except (ValueError, KeyError, TypeError):
        return ()  # signed by TikTok, but about something else
    if not kind.startswith(POSTS) or not isinstance(publish_id, str) or not publish_id:
        return ()
    return (ProviderEvent(kind, handle={"publish_id": publish_id}),)
