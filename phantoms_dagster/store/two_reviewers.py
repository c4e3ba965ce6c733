"""A channel's rules about approvals: two different people must approve, or nobody may approve a brief that they added.

`decisions` checks these rules before it records an approval. A first approval is a row of `first_approvals` until a second person
completes it. It counts for one content only. Regenerating and editing void it, because they require a new approval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, text

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Channel
from phantoms_dagster.store.audit import Actor

# The first approval of video `v`, whose approval stage is the row `a`.
FIRST = """(SELECT to_jsonb(f) FROM phantoms.first_approvals f WHERE f.video_id = v.id AND f.given_at >= a.ready_at)"""
_KEEP = text(
    """
    INSERT INTO phantoms.first_approvals (video_id, person, reviewer, note, via, content_sha256, given_at)
    SELECT d.id, :person, :reviewer, :note, :via, d.content, clock_timestamp()
    FROM unnest(CAST(:ids AS bigint[]), CAST(:contents AS text[])) AS d(id, content)
    ON CONFLICT (video_id) DO UPDATE SET person = excluded.person, reviewer = excluded.reviewer, note = excluded.note,
        via = excluded.via, content_sha256 = excluded.content_sha256, given_at = excluded.given_at
    """
)
# A rejected video waits for a person again, so that the second person finds it in the queue.
_ASK_AGAIN = text(
    """
    UPDATE phantoms.stages
    SET state = 'ready', attempts = 0, failing_since = NULL, waits = 0, generation = generation + 1, output = NULL,
        ready_at = clock_timestamp(), retry_at = NULL, lease_owner = NULL, lease_until = NULL, error_class = NULL,
        reason = 'approved by one of two', started_at = NULL, finished_at = NULL, updated_at = clock_timestamp()
    WHERE video_id = ANY(:ids) AND stage = 'approval' AND state = 'rejected'
    """
)
_FORGET = text("DELETE FROM phantoms.first_approvals WHERE video_id = ANY(:ids)")


@dataclass(frozen=True)
class FirstApproval:
    """An approval that a second person must complete. `person`: the responsible person; for a guest, the user who invited them."""

    person: str
    reviewer: str
    note: str
    via: str
    given_at: datetime


class WantsAnother(InvalidInput):
    """The channel requires another person to approve. The message says who may not, and why."""


def first_of(row: RowMapping | Mapping[str, Any], content: str) -> FirstApproval | None:
    """The first approval of exactly that content, when there is one. `row` has `first`, as FIRST reads it."""
    given = row["first"]
    if given is None or given["content_sha256"] != content:
        return None
    return FirstApproval(given["person"], given["reviewer"], given["note"], given["via"], datetime.fromisoformat(given["given_at"]))


def rule(key: str, channel: Channel, added_by: str | None, first: FirstApproval | None, actor: Actor) -> WantsAnother | bool:
    """Whether the actor's approval is the first of two; or why they may not approve."""
    if channel.reviewers < 2 and channel.own_briefs == "allow":
        return False
    person = actor.person
    if person is None:
        wanted = "two different people to approve" if channel.reviewers > 1 else "nobody to approve a brief of their own"
        return WantsAnother(
            f"channel {channel.name} wants {wanted}, and a run of Dagster does not know who asks: "
            f"approve at the desk, or with `phantoms approve {key}`"
        )
    if channel.own_briefs == "refuse" and added_by is not None and same(added_by, person):
        return WantsAnother(f"{person} added the brief of {key}, and channel {channel.name} requires another person to approve it")
    if channel.reviewers < 2:
        return False
    if first is None:
        return True
    if same(first.person, person):
        invited = "" if same(first.reviewer, person) else f" (as {first.reviewer})"
        return WantsAnother(
            f"{first.person} approved {key} already{invited}, on {first.given_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC: "
            f"channel {channel.name} wants a second, different person"
        )
    return False


def keep(connection: Connection, ids: Sequence[int], contents: Sequence[str], actor: Actor, note: str) -> None:
    """Store first approvals of these videos. Their approvals must be locked."""
    connection.execute(_ASK_AGAIN, {"ids": list(ids)})
    values = {"person": actor.person, "reviewer": actor.name, "note": note, "via": actor.via}
    connection.execute(_KEEP, {**values, "ids": list(ids), "contents": list(contents)})


def forget(connection: Connection, ids: Sequence[int]) -> None:
    """Delete first approvals that were completed, or ended by a rejection or a change of platforms."""
    connection.execute(_FORGET, {"ids": list(ids)})


def same(one: str, other: str) -> bool:
    """Whether two names belong to the same person."""
    return one.strip().casefold() == other.strip().casefold()
