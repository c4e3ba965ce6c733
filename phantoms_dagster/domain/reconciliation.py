"""Posts that a person has to settle, because their outcome is unknown or their creator has them, and what that person may say.

The stage of such a post is deferred and reads the platform again, after growing gaps (`domain.retry`). `production.reconciliation`
checks what a person says, and `store.reconciliation` saves it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Platform

# A post whose outcome is still unknown after this long, or after this many reads, needs a person. Reading goes on meanwhile.
NEEDS_PERSON_AFTER = timedelta(hours=1)
NEEDS_PERSON_READS = 10
# The field of a handed-over post's handle with the time since when its creator has it.
HANDED_OVER_AT = "handed_over_at"
# A draft that its creator has not posted after this long is asked for less often, and a person says how it ended.
CREATOR_HAS_TIME = timedelta(days=3)


@dataclass(frozen=True)
class UnknownPost:
    """A post whose outcome is unknown.

    `since`: when it may first have gone out. `reads`: how often the platform was asked since then. `next_read`: when it is asked
    again; None when nothing will ask, because the stage has failed.
    """

    key: str
    platform: Platform
    account: str
    since: datetime
    reads: int
    next_read: datetime | None

    def needs_person(self, now: datetime) -> bool:
        """Whether reading has not settled it, or has ended."""
        return self.next_read is None or self.reads >= NEEDS_PERSON_READS or now - self.since >= NEEDS_PERSON_AFTER


def post_reference(platform: Platform, given: str, *, sandbox: bool) -> str:
    """The part of a post's URL that names the post, or the id itself. Raises InvalidInput for anything else."""
    forms = [form for form in platform.spec.post_forms if sandbox or not form.sandbox]
    if not forms:
        raise InvalidInput(f"Phantoms does not know what URLs of posts on {platform.title} look like, so it cannot check one")
    for form in forms:
        if (found := re.fullmatch(form.pattern, given.strip())) is not None:
            return found["id"]
    examples = " or ".join(form.example for form in forms)
    raise InvalidInput(f"{given!r:.200} is no post on {platform.title}; give {examples}")
