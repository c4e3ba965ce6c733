"""When to ask what the creator did with a draft.

TikTok documents neither how long a draft waits nor what becomes of it when the creator ignores or deletes it. So it is asked hourly
for three days, and once a day after that, until it tells the end or a person does.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from phantoms_dagster.domain.errors import NotYet
from phantoms_dagster.domain.reconciliation import CREATOR_HAS_TIME

ASK_EACH = timedelta(hours=1)
ASK_LATER_EACH = timedelta(days=1)


def waiting_for_creator(account: str, handed_over_at: datetime, now: datetime) -> NotYet:
    """The reason why a post that was handed over is not done, and when to ask again."""
    pause = ASK_EACH if now - handed_over_at < CREATOR_HAS_TIME else ASK_LATER_EACH
    message = (
        f"waiting for the creator: the draft has been in the TikTok inbox of {account} since {handed_over_at:%Y-%m-%d %H:%M} UTC; "
        "tap the notification in the TikTok app and post it"
    )
    return NotYet(message, retry_after=pause.total_seconds())
