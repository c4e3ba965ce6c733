"""Checks before a post is due: what would make it fail, and the fix. Each post is checked 24 hours and 1 hour before its time.

`production.preflight` runs the checks. A platform adds its own with the adapter `preflight` (see `platforms.tools`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from phantoms_dagster.domain.models import Platform, PostWords, VariantOutput

# `unchecked`: the platform could not be asked, which says nothing about the post. `note`: it cannot be checked, but matters.
Verdict: TypeAlias = Literal["ok", "note", "unchecked", "wrong"]
_ORDER: tuple[Verdict, ...] = ("ok", "note", "unchecked", "wrong")

# A post is checked once in each phase: when it becomes due within this time.
PHASES: Mapping[str, timedelta] = MappingProxyType({"day": timedelta(hours=24), "hour": timedelta(hours=1)})
ASKED = "asked"  # the phase of a check that a person asked for
# What failed or could not be checked is checked again after this time, so that it clears when somebody has fixed it.
CHECK_AGAIN = timedelta(minutes=15)


@dataclass(frozen=True)
class PreflightCheck:
    """One check. `name`: what was checked, such as `token`. `found`: the result in words. `fix`: what to do about it."""

    name: str
    verdict: Verdict
    found: str
    fix: str = ""


def worst(checks: Iterable[PreflightCheck]) -> Verdict:
    """The worst verdict of them; `ok` without any."""
    return max((check.verdict for check in checks), key=_ORDER.index, default="ok")


def as_rows(checks: Iterable[PreflightCheck]) -> list[dict[str, str]]:
    """The checks as JSON."""
    return [{"name": c.name, "verdict": c.verdict, "found": c.found, "fix": c.fix} for c in checks]


def of_rows(rows: Iterable[Mapping[str, Any]]) -> tuple[PreflightCheck, ...]:
    """The checks that `as_rows` made JSON of."""
    return tuple(PreflightCheck(row["name"], row["verdict"], row["found"], row["fix"]) for row in rows)


@dataclass(frozen=True)
class Upcoming:
    """A post that is not out yet. `due_at`: when it is due. `account`: None when the channel names none.

    `stopped`: the stage before it that ended without an output, and its
    reason. `variant` and `words`: what would be posted, as approved; None before the approval. `checked`: the last check of each
    phase, as the due time that it was for, the time of the check, and its verdict. `route`: see `PostTerms.way`.
    """

    video_id: int
    key: str
    platform: Platform
    account: str | None
    due_at: datetime
    approved: bool = False
    stopped: str = ""
    variant: VariantOutput | None = None
    words: PostWords | None = None
    checked: Mapping[str, tuple[datetime, datetime, Verdict]] = field(default_factory=dict)
    route: str = ""


def phase_to_check(post: Upcoming, now: datetime) -> str | None:
    """The phase in which the post must be checked now; None when it need not be."""
    left = post.due_at - now
    if left <= timedelta(0):
        return None  # it goes out now
    phase = min((name for name, before in PHASES.items() if left <= before), key=PHASES.__getitem__, default=None)
    if phase is None or phase not in post.checked:
        return phase
    due_at, checked_at, verdict = post.checked[phase]
    if due_at != post.due_at:
        return phase  # it was moved
    return phase if verdict in ("unchecked", "wrong") and now - checked_at >= CHECK_AGAIN else None


def of_progress(post: Upcoming, phase: str | None) -> PreflightCheck:
    """Whether the video will be ready for its post."""
    if post.stopped:
        return PreflightCheck("video", "wrong", post.stopped, f"phantoms retry {post.key}")
    if post.variant is not None:
        return PreflightCheck("video", "ok", "approved, and ready for this platform")
    if post.approved:
        return PreflightCheck("video", "ok", "approved; its file for this platform is being made")
    verdict: Verdict = "wrong" if phase == "hour" else "note"
    return PreflightCheck("video", verdict, "nobody has approved it yet", f"phantoms approve {post.key}, or the desk's review page")
