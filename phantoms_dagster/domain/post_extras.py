"""What is added to a post after its publication, such as a caption track, and when it is tried again.

An extra is a step of its own. It begins when the post is confirmed, and it has its own tries. Whatever happens to it, the post
stays as it is. `production.post_extras` carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from phantoms_dagster.domain.errors import Disconnected, NotFound, NotYet, Permanent, PhantomsError, Rejected, Throttled
from phantoms_dagster.domain.models import MediaFile, Platform, Sentence

ExtraName: TypeAlias = Literal["captions", "thumbnail"]
# `refused`: it will never be added, and `detail` says why.
ExtraState: TypeAlias = Literal["waiting", "added", "refused"]

MOST_TRIES = 12
TRY_FOR = timedelta(days=7)
# A process that died in the middle of a try is given up after this time.
TRY_LASTS = timedelta(minutes=10)
SHORTEST, LONGEST = timedelta(minutes=1), timedelta(hours=6)
UNTIL_CONNECTED = timedelta(hours=1)


@dataclass(frozen=True)
class PendingExtra:
    """An extra that is due. `tries`: how many requests may have been sent for it, so it may be there already.

    `current`: the video's files and sentences are still those that were posted.
    """

    post_id: int
    name: ExtraName
    video_key: str
    platform: Platform
    account: str
    remote_id: str
    marker: str
    published_at: datetime
    tries: int
    language: str
    current: bool
    sentences: tuple[Sentence, ...] = ()
    picture: MediaFile | None = None


@dataclass(frozen=True)
class ExtraOutcome:
    """What the table says after a try. `due_at`: when a waiting extra is tried again. `tries`: see `PendingExtra`."""

    state: ExtraState
    detail: str
    tries: int
    due_at: datetime | None = None


def after_failure(error: PhantomsError, extra: PendingExtra, now: datetime) -> ExtraOutcome:
    """What follows after a failed try.

    Waiting for a quota, an outage of ours or a connection costs no try. After a week the extra is given up in any case.
    """
    said = str(error)
    if isinstance(error, Disconnected):
        outcome = ExtraOutcome("waiting", said, extra.tries, now + UNTIL_CONNECTED)
    elif isinstance(error, Permanent | Rejected | NotFound):
        return ExtraOutcome("refused", said, extra.tries + 1)
    elif isinstance(error, Throttled | NotYet):
        wait = timedelta(seconds=error.retry_after or 0)
        outcome = ExtraOutcome("waiting", said, extra.tries, now + max(SHORTEST, wait))
    else:
        tries = extra.tries + 1
        if tries >= MOST_TRIES:
            return ExtraOutcome("refused", f"given up after {tries} tries: {said}", tries)
        outcome = ExtraOutcome("waiting", said, tries, now + min(SHORTEST * 2**extra.tries, LONGEST))
    if now - extra.published_at > TRY_FOR:
        return ExtraOutcome("refused", f"given up after {TRY_FOR.days} days: {said}", outcome.tries)
    return outcome
