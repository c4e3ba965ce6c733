"""Review decisions: approve (for all or some platforms), reject, hold, release from hold, undo."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query
from pydantic import Field, model_validator

from phantoms_dagster.desk.access import Role
from phantoms_dagster.desk.api.routes import add
from phantoms_dagster.desk.api.values import (
    ApiModel,
    KeyInPath,
    Limit,
    NumberInPath,
    PlatformName,
    RequestModel,
    TextInQuery,
    Words,
)
from phantoms_dagster.desk.pages.media import address
from phantoms_dagster.desk.visits import CurrentVisit
from phantoms_dagster.domain.errors import NotFound
from phantoms_dagster.domain.models import Platform

TAG = "review"


class Decide(RequestModel):
    """A decision on a video. `content` is the hash of the version that was reviewed, from `GET .../review`."""

    answer: Literal["approve", "reject", "hold"]
    content: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    platforms: Annotated[list[PlatformName], Field(min_length=1, max_length=len(Platform))] | None = None
    reason: Words = ""

    @model_validator(mode="after")
    def _whole(self) -> Decide:
        if self.answer == "approve" and self.content is None:
            raise ValueError("an approval needs `content`, the hash of the version that was reviewed")
        if self.answer != "approve" and self.platforms is not None:
            raise ValueError("`platforms` is for approvals only")
        if self.answer == "reject" and not self.reason:
            raise ValueError("a rejection needs a reason")
        return self


class DecisionResource(ApiModel):
    """A decision. `state` is pending (it can be undone until `commit_at`), committed, undone or refused (`outcome` says why)."""

    id: int
    key: str
    answer: str
    platforms: list[str] | None
    reviewer: str
    note: str
    state: str
    outcome: str | None
    made_at: datetime
    commit_at: datetime
    ended_at: datetime | None


class QueuedReview(ApiModel):
    """A video in the queue. `seconds` is its length, `since` when it began to wait, `held_by` who put it on hold.

    `first_by` is who gave the first of two approvals, on channels that need two.
    """

    key: str
    title: str
    channel: str
    platforms: list[str]
    publish_at: datetime | None
    priority: int
    since: datetime | None
    seconds: float | None
    held_by: str | None
    first_by: str | None = None


class Queue(ApiModel):
    """The videos that wait for a decision, by publication time and priority; or those on hold, longest first."""

    videos: list[QueuedReview]


class First(ApiModel):
    """The first of two approvals. `person` is who it counts for: a guest's approval counts for the person who invited them."""

    person: str
    reviewer: str
    note: str
    given_at: datetime


class ReviewDetail(ApiModel):
    """Everything to decide on. `film` is a URL that expires within minutes; `words` are the words of each post.

    `changed` says what has changed since the video was made. `warnings` do not prevent an approval.
    `first` is an existing approval of exactly this content, which a second person must complete.
    """

    key: str
    content: str
    film: str | None
    words: list[dict[str, Any]]
    changed: str
    warnings: list[str]
    first: First | None


def register(app: FastAPI) -> None:
    """Add the routes."""
    add(app, "GET", "/review", list_review, tag=TAG)
    add(app, "GET", "/videos/{key}/review", show_review, tag=TAG)
    add(app, "POST", "/videos/{key}/decision", decide, tag=TAG)
    add(app, "POST", "/videos/{key}/release", release, tag=TAG)
    add(app, "GET", "/decisions/{number}", show_decision, tag=TAG)
    add(app, "POST", "/decisions/{number}/undo", undo_decision, tag=TAG)


def list_review(
    visit: CurrentVisit,
    channel: TextInQuery = "",
    state: Annotated[Literal["waiting", "held"], Query()] = "waiting",
    limit: Limit = 50,
) -> Queue:
    """List the videos that wait for a decision, or those on hold."""
    cards = visit.desk.queue.cards(channel=channel, held=state == "held", limit=limit)
    return Queue(videos=[QueuedReview.model_validate(card) for card in cards])


def show_review(visit: CurrentVisit, key: KeyInPath) -> ReviewDetail:
    """Return everything that a decision needs."""
    screen = visit.desk.queue.screen(key)
    if screen is None:
        raise NotFound(f"There is no video {key}.")
    review = visit.desk.decisions.review(key)
    if review is None:
        raise NotFound(f"{key} is not rendered yet, so there is nothing to review.")
    return ReviewDetail(
        key=key,
        content=review.content,
        film=address(visit.desk, screen.master.video) if screen.master else None,
        words=[post.model_dump(mode="json") for post in review.words],
        changed=review.changed,
        warnings=list(review.warnings),
        first=First.model_validate(review.first) if review.first else None,
    )


def decide(visit: CurrentVisit, key: KeyInPath, body: Decide) -> DecisionResource:
    """Decide on a video. Until `commit_at` the decision can be undone."""
    _known(visit, key)
    only = tuple(platform for platform in Platform if str(platform) in (body.platforms or ()))
    made = visit.desk.pending.submit(key, body.answer, visit.actor, content_sha256=body.content or "", note=body.reason, only=only)
    return DecisionResource.model_validate(made)


def release(visit: CurrentVisit, key: KeyInPath) -> QueuedReview:
    """Release a video from hold. It waits for a decision again."""
    _known(visit, key)
    visit.desk.decisions.release(key, reviewer=visit.name, via=visit.via, address=visit.address)
    [row] = visit.desk.board.of([key])
    return QueuedReview(
        key=row.key,
        title=row.title,
        channel=row.channel,
        platforms=list(row.platforms),
        publish_at=row.publish_at,
        priority=row.priority,
        since=row.changed_at.get("approval"),
        seconds=None,
        held_by=row.held_by,
    )


def show_decision(visit: CurrentVisit, number: NumberInPath) -> DecisionResource:
    """Return a decision and its state."""
    return DecisionResource.model_validate(visit.desk.pending.get(number))


def undo_decision(visit: CurrentVisit, number: NumberInPath) -> DecisionResource:
    """Undo a decision before it is committed. Operators may also undo the decisions of others."""
    return DecisionResource.model_validate(visit.desk.pending.undo(number, visit.actor, others=visit.role >= Role.OPERATOR))


def _known(visit: CurrentVisit, key: str) -> None:
    if not visit.desk.board.of([key]):
        raise NotFound(f"There is no video {key}.")
