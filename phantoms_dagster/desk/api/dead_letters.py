"""List, replay and discard dead letters."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query
from pydantic import AfterValidator

from phantoms_dagster.desk.api.routes import add
from phantoms_dagster.desk.api.values import (
    ApiModel,
    Cursor,
    Limit,
    Masked,
    MaskedRow,
    NumberInPath,
    Reason,
    RequestModel,
    TextInQuery,
)
from phantoms_dagster.desk.masking import masked
from phantoms_dagster.desk.visits import CurrentVisit
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.store.board import MOST_COUNTED
from phantoms_dagster.store.dead_letters.letters import DeadLetters, Handled, LetterFilter, LetterLeft, stages_named

TAG = "dead letters"
State = Annotated[Literal["open", "replayed", "discarded", "all"], Query()]
ErrorClass = Annotated[
    Literal["transient", "permanent", "rejected", "unknown", "internal"] | None, Query(alias="class", description="Class of error")
]


class DeadLetterResource(ApiModel):
    """A dead letter. `tries` counts the attempts that led to it."""

    id: int
    key: str
    stage: str
    revision: int
    provider: str | None
    error_class: str
    code: str | None
    message: Masked
    created_at: datetime
    tries: int
    run_id: str | None
    state: str
    closed_at: datetime | None
    closed_by: str | None
    closed_reason: str | None


class Letters(ApiModel):
    """A page of dead letters, newest first. `total` is the number of matches, up to 1,001."""

    letters: list[DeadLetterResource]
    total: int
    next_cursor: int | None


class DeadLetterDetailResource(ApiModel):
    """A dead letter with the provider's answer, every attempt, and the current state of its stage."""

    letter: DeadLetterResource
    evidence: MaskedRow
    attempts: Annotated[list[dict[str, Any]], AfterValidator(masked)]
    stage_state: str


class Discard(RequestModel):
    """The reason for a discard."""

    reason: Reason


def register(app: FastAPI) -> None:
    """Add the routes."""
    add(app, "GET", "/dead-letters", list_dead_letters, tag=TAG)
    add(app, "GET", "/dead-letters/{number}", show_dead_letter, tag=TAG)
    add(app, "POST", "/dead-letters/{number}/replay", replay_dead_letter, tag=TAG)
    add(app, "POST", "/dead-letters/{number}/discard", discard_dead_letter, tag=TAG)


def list_dead_letters(  # noqa: PLR0917 - FastAPI calls it by keyword
    visit: CurrentVisit,
    state: State = "open",
    stage: TextInQuery = "",
    provider: TextInQuery = "",
    error_class: ErrorClass = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Letters:
    """List dead letters, newest first. `stage` may be a kind such as `post`; `provider` may be `none`."""
    wanted = LetterFilter(
        stages=stages_named(stage) if stage else None,
        provider=provider or None,
        error_class=error_class,
        state=None if state == "all" else state,
    )
    kept = _letters(visit)
    rows = kept.list(wanted, limit=limit + 1, before=cursor)
    return Letters(
        letters=[DeadLetterResource.model_validate(row) for row in rows[:limit]],
        total=kept.count(wanted, most=MOST_COUNTED + 1),
        next_cursor=rows[limit - 1].id if len(rows) > limit else None,
    )


def show_dead_letter(visit: CurrentVisit, number: NumberInPath) -> DeadLetterDetailResource:
    """Return a dead letter."""
    found = _letters(visit).show(number)
    return DeadLetterDetailResource.model_validate(found)


def replay_dead_letter(visit: CurrentVisit, number: NumberInPath) -> DeadLetterDetailResource:
    """Start the stage over with a fresh retry budget. When a post's outcome is unknown, the platform is asked first; it is never
    posted again blindly.
    """
    kept = _letters(visit)
    kept.show(number)
    _done(kept.replay(_one(number), by=visit.name, actor=visit.actor))
    return DeadLetterDetailResource.model_validate(kept.show(number))


def discard_dead_letter(visit: CurrentVisit, number: NumberInPath, body: Discard) -> DeadLetterDetailResource:
    """Give up the stage and all stages after it. The letter is kept and can be replayed later."""
    kept = _letters(visit)
    kept.show(number)
    _done(kept.discard(_one(number), by=visit.name, reason=body.reason, actor=visit.actor))
    return DeadLetterDetailResource.model_validate(kept.show(number))


def _letters(visit: CurrentVisit) -> DeadLetters:
    return DeadLetters(visit.desk.services.engine)


def _one(number: int) -> LetterFilter:
    return LetterFilter(ids=[number], state=None)


def _done(handled: Handled) -> None:
    if not handled.closed:
        refused: LetterLeft | None = handled.refused[0] if handled.refused else None
        raise InvalidInput(refused.reason if refused else "this letter is already closed")
