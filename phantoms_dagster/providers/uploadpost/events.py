"""Upload-Post's webhooks. They are not signed, so a secret of ours at the end of the address shows where they come from.

One comes for each platform of a request, perhaps several times. None has the request's id, so an event is a reason to look at the
account's open posts. Source: Upload-Post, "Webhooks".
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from phantoms_dagster.domain.provider_events import Delivery, EventSecrets, NotAuthentic, ProviderEvent, read_json
from phantoms_dagster.providers.uploadpost.publisher import subject_of

COMPLETED = "upload_completed"


def read_events(delivery: Delivery, secrets: EventSecrets) -> Sequence[ProviderEvent]:
    """See `provider_events.EventReader`. Only the end of an upload matters; its result is read from the status."""
    given = delivery.secret.encode()
    if not any(hmac.compare_digest(secret.encode(), given) for secret in secrets.settings("events_secret")):
        raise NotAuthentic("the address does not end with PHANTOMS_UPLOADPOST_EVENTS_SECRET")
    try:
        told = read_json(delivery.body)
        kind, profile, platform = told["event"], told["profile_username"], told["platform"]
    except (ValueError, KeyError, TypeError):
        return ()
    if kind != COMPLETED or not (isinstance(profile, str) and profile and isinstance(platform, str) and platform):
        return ()
    return (ProviderEvent(kind, subject=subject_of(profile), platform=platform),)
