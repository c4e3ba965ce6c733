"""Bulk actions: one action applied to many videos, step by step."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query
from pydantic import Field, model_validator
from sqlalchemy import Connection
from starlette.responses import JSONResponse

from phantoms_dagster.desk.api.routes import add
from phantoms_dagster.desk.api.values import (
    MOST_NUMBER,
    ApiModel,
    Cursor,
    IdempotencyKey,
    Limit,
    Masked,
    MaskedRow,
    Moment,
    NumberInPath,
    Reason,
    RequestModel,
    VideoKey,
)
from phantoms_dagster.desk.pages.pipeline import selected
from phantoms_dagster.desk.visits import CurrentVisit
from phantoms_dagster.domain.search import MOST_CHARACTERS
from phantoms_dagster.store import bulk as store
from phantoms_dagster.store.answers import Answers, StoredAnswer

TAG = "bulk actions"


class NewAction(RequestModel):
    """The action, and its videos: either `keys`, or `q` for everything that a search finds.

    The action `priority` needs `priority`, `move` needs `publish_at` (null: as soon as it is approved), `discard` needs `reason`.
    `canary`: a retry or replay runs for one video first; the rest follow when it succeeds.
    """

    action: Literal["retry", "hold", "priority", "move", "replay", "discard"]
    keys: Annotated[list[VideoKey], Field(min_length=1, max_length=1_000)] | None = None
    q: Annotated[str, Field(max_length=MOST_CHARACTERS)] | None = None
    reason: Reason | None = None
    priority: Annotated[int, Field(ge=0, le=9)] | None = None
    publish_at: Moment | None = None
    canary: bool = False

    @model_validator(mode="after")
    def _whole(self) -> NewAction:
        if (self.keys is None) == (self.q is None):
            raise ValueError("give either `keys` or `q`")
        if self.action == "priority" and self.priority is None:
            raise ValueError("give `priority`: 0 (most urgent) to 9")
        if self.action == "move" and "publish_at" not in self.model_fields_set:
            raise ValueError("give `publish_at`: a time, or null for as soon as it is approved")
        if self.action == "discard" and self.reason is None:
            raise ValueError("a discard needs a `reason`")
        return self


class Action(ApiModel):
    """A bulk action. `state` is canary, running, stopped or ended. `steps` counts the pending, done, failed and skipped steps."""

    id: int
    action: str
    arguments: MaskedRow
    chosen: str
    who: str
    state: str
    note: Masked
    made_at: datetime
    ended_at: datetime | None
    steps: dict[str, int]


class Actions(ApiModel):
    """A page of bulk actions, newest first."""

    actions: list[Action]
    next_cursor: int | None


class BulkStepResource(ApiModel):
    """A step of a bulk action."""

    n: int
    key: str
    letter_id: int | None
    state: str
    outcome: Masked
    ended_at: datetime | None


class Steps(ApiModel):
    """A page of steps in one state, in order."""

    steps: list[BulkStepResource]
    next_cursor: int | None


def register(app: FastAPI) -> None:
    """Add the routes."""
    add(app, "GET", "/bulk-actions", list_bulk_actions, tag=TAG)
    add(app, "POST", "/bulk-actions", start_bulk_action, tag=TAG, status=201)
    add(app, "GET", "/bulk-actions/{number}", show_bulk_action, tag=TAG)
    add(app, "GET", "/bulk-actions/{number}/steps", list_bulk_steps, tag=TAG)
    add(app, "POST", "/bulk-actions/{number}/stop", stop_bulk_action, tag=TAG)
    add(app, "POST", "/bulk-actions/{number}/go-on", go_on_with_bulk_action, tag=TAG)


def list_bulk_actions(visit: CurrentVisit, cursor: Cursor = None, limit: Limit = 50) -> Actions:
    """List bulk actions, newest first."""
    rows = visit.desk.bulk.latest(before=cursor or MOST_NUMBER, limit=limit + 1)
    counts = visit.desk.bulk.counts_of([row.id for row in rows[:limit]])
    return Actions(
        actions=[_action(row, counts[row.id]) for row in rows[:limit]],
        next_cursor=rows[limit - 1].id if len(rows) > limit else None,
    )


def start_bulk_action(visit: CurrentVisit, body: NewAction, key: IdempotencyKey = None) -> Action:
    """Start a bulk action. It runs in the background."""
    whole = body.keys is None
    given: dict[str, Any] = {"reason": body.reason} if body.reason else {}
    if body.action == "priority":
        given["priority"] = str(body.priority)
    if body.action == "move":
        given["publish_at"] = body.publish_at.isoformat() if body.publish_at else "now"
    answers, sent = Answers(visit.desk.services.engine), f"bulk action {body.model_dump_json(exclude_unset=True)}"
    # Check before searching: when the same request comes again, the search may find other videos, or none.
    if (known := answers.known(visit.name, key, sent)) is not None:
        return JSONResponse(known.body, known.status)  # type: ignore[return-value]
    keys = selected(visit, body.q or "", whole, body.keys or [])

    def work(connection: Connection) -> StoredAnswer:
        number = visit.desk.bulk.submit_in(
            connection,
            body.action,
            [(one, None) for one in keys],
            visit.actor,
            arguments=given,
            chosen=(body.q or "all videos") if whole else "",
            canary=body.canary,
        )
        steps = {"pending": len(keys), "done": 0, "failed": 0, "skipped": 0}
        return StoredAnswer(201, _action(visit.desk.bulk.get_in(connection, number), steps).model_dump(mode="json"))

    said = answers.once(visit.name, key, sent, work)
    return JSONResponse(said.body, said.status)  # type: ignore[return-value]


def show_bulk_action(visit: CurrentVisit, number: NumberInPath) -> Action:
    """Return a bulk action."""
    return _shown(visit, number)


def list_bulk_steps(
    visit: CurrentVisit,
    number: NumberInPath,
    state: Annotated[Literal["pending", "done", "failed", "skipped"], Query()] = "failed",
    cursor: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Limit = 50,
) -> Steps:
    """List the steps of a bulk action in one state."""
    visit.desk.bulk.get(number)
    rows = visit.desk.bulk.items(number, state, after=cursor, limit=limit + 1)
    return Steps(
        steps=[BulkStepResource.model_validate(row) for row in rows[:limit]],
        next_cursor=rows[limit - 1].n if len(rows) > limit else None,
    )


def stop_bulk_action(visit: CurrentVisit, number: NumberInPath) -> Action:
    """Stop a bulk action. No further step starts; finished steps stay finished."""
    visit.desk.bulk.get(number)
    visit.desk.bulk.stop(number, visit.actor)
    return _shown(visit, number)


def go_on_with_bulk_action(visit: CurrentVisit, number: NumberInPath) -> Action:
    """Run the remaining steps, without waiting for the canary or after a stop."""
    visit.desk.bulk.get(number)
    visit.desk.bulk.go_on(number, visit.actor)
    return _shown(visit, number)


def _shown(visit: CurrentVisit, number: int) -> Action:
    return _action(visit.desk.bulk.get(number), visit.desk.bulk.counts(number))


def _action(row: store.Bulk, steps: dict[str, int]) -> Action:
    fields = {name: getattr(row, name) for name in Action.model_fields if name != "steps"}
    return Action(**fields, steps=steps)
