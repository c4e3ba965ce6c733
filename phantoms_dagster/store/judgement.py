"""What there is to decide on, and what a decision on it would come to. Nothing is written here: that is in `decisions`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import RowMapping

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Platform, PostWords
from phantoms_dagster.store.two_reviewers import FirstApproval

# A video whose approval is in one of these states can be decided on.
OPEN = ("ready", "deferred", "running", "rejected")


class DecidedFirst(InvalidInput):
    """Somebody else was first; the message says who, and with what."""


@dataclass(frozen=True)
class Decided:
    """A decision that was recorded, or that was recorded before. `warnings`: what the reviewer should know of it.

    `first`: it is the first of two approvals, and nothing goes out before another person approves, too.
    """

    key: str
    approved: bool
    new: bool
    warnings: tuple[str, ...] = ()
    first: bool = False


@dataclass(frozen=True)
class Review:
    """What there is to decide on. `words`: what the posts would say now; `content`: the hash of all of it.

    `changed`: what is not as it was when the film was rendered and its words were shown, in words; empty when all is.
    `warnings`: what speaks against it and refuses nothing. `first`: the approval of exactly this that a second person completes.
    """

    words: tuple[PostWords, ...]
    content: str
    changed: str = ""
    warnings: tuple[str, ...] = ()
    first: FirstApproval | None = None


@dataclass(frozen=True)
class Judgement:
    """What decisions would come to, in the order of their keys; the rows, what would be approved, and first approvals, by key."""

    rows: Mapping[str, RowMapping]
    reviews: Mapping[str, Review]
    found: Sequence[Decided | InvalidInput]
    firsts: Mapping[str, FirstApproval | None]


def not_wanted(key: str, row: RowMapping | None, only: Sequence[Platform]) -> InvalidInput | None:
    """Why the video cannot be approved for these platforms alone."""
    strange = [platform.title for platform in only if row is not None and platform not in (row["platforms"] or [])]
    return InvalidInput(f"{key} does not go to {' or '.join(strange)}; see `phantoms show {key}`") if strange else None


def answer(approved: bool) -> str:
    """The word for a decision."""
    return "approved" if approved else "rejected"


_SAID = {"approve": "approved", "reject": "rejected", "hold": "held"}


def somebody_first(key: str, row: RowMapping) -> DecidedFirst | None:
    """Who has the video now, when somebody has."""
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
    """A time that PostgreSQL wrote into JSON."""
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _too_late(key: str, out: Sequence[str], wanted: Sequence[str]) -> InvalidInput:
    """Why an approved video cannot be rejected, and what can be done. `out`: the platforms that have a post, or may have one."""
    again = f"`phantoms retry {key} --from script` makes it again and asks for another decision"
    if not out:
        return InvalidInput(f"{key} is approved already. To take that back before it is posted: {again}")
    where = " and ".join(Platform(name).title for name in out)
    rest = "" if set(out) >= set(wanted) else f". For what is not posted yet: {again}"
    return InvalidInput(
        f"{key} is approved already, and its post on {where} is out or on its way: nothing here takes a post back; delete it "
        f"there{rest}"
    )


def judged(
    key: str, row: RowMapping | None, review: Review | None, narrow: Review | None, *, approved: bool, looked_at: str | None
) -> Decided | InvalidInput:
    """What a decision on the video comes to, as it stands. `narrow`: the part of `review` that would go out."""
    if row is None or review is None or narrow is None or row["state"] == "blocked":
        return InvalidInput(f"{key} is not rendered yet: there is nothing to review (see `phantoms show {key}`)")
    if row["state"] == "done":
        return Decided(key, approved=True, new=False) if approved else _too_late(key, row["out"] or [], row["platforms"] or [])
    if row["state"] not in OPEN:
        return InvalidInput(f"{key} was given up; bring it back with `phantoms retry {key}`, then decide")
    if (first := somebody_first(key, row)) is not None:
        return first
    if approved and any(post.platform.spec.words.choices_key is not None and post.tiktok is None for post in narrow.words):
        return InvalidInput(
            f"{key} goes to TikTok, and its channel does not say who may see its posts there: set `tiktok: {{privacy: ...}}` in "
            f"channels.yaml, run `phantoms doctor`, then look again with `phantoms show {key}`"
        )
    if approved and looked_at is not None and not (looked_at and review.content.startswith(looked_at)):
        return InvalidInput(
            f"{key} is not what was looked at: its film or the words of its posts have changed since (now {review.content[:12]}); "
            f"look again with `phantoms show {key}`"
        )
    if approved and looked_at is None and review.changed:
        return InvalidInput(
            f"{key} would post other words than were shown when it was rendered ({review.changed}); "
            f"look with `phantoms show {key}`, then `phantoms approve {key} --content {review.content[:12]}`"
        )
    return Decided(key, approved=approved, new=True)
