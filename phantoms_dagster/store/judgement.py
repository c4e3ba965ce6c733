"""Works out what a decision would be about and what its result would be. It writes nothing; `decisions` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import RowMapping

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Platform, PostWords
from phantoms_dagster.store.bookings import Booked
from phantoms_dagster.store.two_reviewers import FirstApproval

# A video whose approval is in one of these states can be decided on.
OPEN = ("ready", "deferred", "running", "rejected")


class DecidedFirst(InvalidInput):
    """Another person decided first. The message says who, and how."""


@dataclass(frozen=True)
class Decided:
    """A recorded decision. `new` is False when it was recorded before. `warnings`: what the reviewer should know.

    `first`: it is the first of two approvals, and nothing is published before another person also approves. `booked`: the
    slots that its posts took.
    """

    key: str
    approved: bool
    new: bool
    warnings: tuple[str, ...] = ()
    first: bool = False
    booked: tuple[Booked, ...] = ()


@dataclass(frozen=True)
class Review:
    """What a decision is about. `words`: the current words of the posts. `content`: the hash of everything.

    `changed`: what has changed since the render, in words; empty when nothing has. `warnings`: reasons to hesitate that forbid
    nothing. `first`: the first approval of exactly this content, which a second person must complete.
    """

    words: tuple[PostWords, ...]
    content: str
    changed: str = ""
    warnings: tuple[str, ...] = ()
    first: FirstApproval | None = None


@dataclass(frozen=True)
class Judgement:
    """The results that decisions would have, in the order of their keys, with rows, reviews and first approvals by key."""

    rows: Mapping[str, RowMapping]
    reviews: Mapping[str, Review]
    found: Sequence[Decided | InvalidInput]
    firsts: Mapping[str, FirstApproval | None]


def not_wanted(key: str, row: RowMapping | None, only: Sequence[Platform]) -> InvalidInput | None:
    """Why the video cannot be approved for only these platforms, or None."""
    strange = [platform.title for platform in only if row is not None and platform not in (row["platforms"] or [])]
    return InvalidInput(f"{key} does not go to {' or '.join(strange)}; see `phantoms show {key}`") if strange else None


def answer(approved: bool) -> str:
    """The word for a decision."""
    return "approved" if approved else "rejected"


_SAID = {"approve": "approved", "reject": "rejected", "hold": "held"}


def already_decided(key: str, row: RowMapping) -> DecidedFirst | None:
    """Why the video cannot be decided on: it is on hold, or another decision is pending. None when it can be."""
    if (held := row["held"]) is not None:
        why = f": {held['note']}" if held["note"] else ""
        return DecidedFirst(
            f"{key} is on hold by {held['reviewer']} since {_clock(held['held_at'])}{why}; "
            f"take it back with `phantoms unhold {key}`"
        )
    if (pending := row["pending"]) is not None:
        until = _clock(pending["commit_at"])
        return DecidedFirst(f"{pending['reviewer']} was first: {_SAID[pending['answer']]} {key}, can be undone until {until}")
    return None


def _clock(moment: str) -> str:
    """Format a time that PostgreSQL wrote into JSON."""
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _too_late(key: str, out: Sequence[str], wanted: Sequence[str]) -> InvalidInput:
    """Why an approved video cannot be rejected, and the next step. `out`: the platforms that have a post, or may have one."""
    again = f"`phantoms retry {key} --from script` makes it again and asks for another decision"
    if not out:
        return InvalidInput(f"{key} is approved already. To take that back before it is posted: {again}")
    where = " and ".join(Platform(name).title for name in out)
    rest = "" if set(out) >= set(wanted) else f". For what is not posted yet: {again}"
    return InvalidInput(
        f"{key} is approved already, and its post on {where} is out or on its way: nothing here takes a post back; delete it "
        f"there{rest}"
    )


def _not_chosen(key: str, words: Sequence[PostWords]) -> InvalidInput | None:
    """Why the video cannot be approved: its channel lacks a key that a platform requires. None when it has them."""
    for post in words:
        own = post.platform.spec.channel_key
        if own is not None and own.required is not None and own.terms is not None and post.terms is None:
            return InvalidInput(
                f"{key} goes to {post.platform.title}, and its channel does not say {own.required.unsaid}: set "
                f"`{own.required.example}` in channels.yaml, run `phantoms doctor`, then look again with `phantoms show {key}`"
            )
    return None


def judged(
    key: str, row: RowMapping | None, review: Review | None, narrow: Review | None, *, approved: bool, looked_at: str | None
) -> Decided | InvalidInput:
    """The result of a decision on the video in its current state. `narrow`: the part of `review` that would be published."""
    if row is None or review is None or narrow is None or row["state"] == "blocked":
        return InvalidInput(f"{key} is not rendered yet: there is nothing to review (see `phantoms show {key}`)")
    if row["state"] == "done":
        return Decided(key, approved=True, new=False) if approved else _too_late(key, row["out"] or [], row["platforms"] or [])
    if row["state"] not in OPEN:
        return InvalidInput(f"{key} was given up; bring it back with `phantoms retry {key}`, then decide")
    if (first := already_decided(key, row)) is not None:
        return first
    if approved and (unchosen := _not_chosen(key, narrow.words)) is not None:
        return unchosen
    if approved and looked_at is not None and not (looked_at and review.content.startswith(looked_at)):
        return InvalidInput(
            f"{key} is not what was looked at: its video or the words of its posts have changed since (now {review.content[:12]}); "
            f"look again with `phantoms show {key}`"
        )
    if approved and looked_at is None and review.changed:
        return InvalidInput(
            f"{key} would post other words than were shown when it was rendered ({review.changed}); "
            f"look with `phantoms show {key}`, then `phantoms approve {key} --content {review.content[:12]}`"
        )
    return Decided(key, approved=approved, new=True)
