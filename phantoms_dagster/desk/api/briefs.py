"""Add briefs, with the same checks and messages as `phantoms import`. A request adds all of its briefs or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import FastAPI, Request
from pydantic import Field
from starlette.responses import JSONResponse

from phantoms_dagster.desk.api.routes import add
from phantoms_dagster.desk.api.values import ApiModel, IdempotencyKey, RequestModel
from phantoms_dagster.desk.errors import problem
from phantoms_dagster.desk.visits import CurrentVisit, Visit
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Brief
from phantoms_dagster.production.intake import make_brief
from phantoms_dagster.store.answers import Answers, StoredAnswer
from phantoms_dagster.store.audit import AuditEntry, note

MOST_BRIEFS = 200
TAG = "briefs"


class NewBrief(RequestModel):
    """A brief. The defaults: the first channel, all of its platforms, no publication time (as soon as approved), priority 5."""

    title: Annotated[str, Field(max_length=1_000)]
    angle: Annotated[str, Field(max_length=10_000)] | None = None
    facts: Annotated[list[Annotated[str, Field(max_length=10_000)]], Field(max_length=100)] | None = None
    channel: Annotated[str, Field(max_length=200)] | None = None
    platforms: Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=20)] | None = None
    publish_at: Annotated[str, Field(max_length=60)] | None = None
    priority: Annotated[int, Field(ge=0, le=9)] | None = None


class NewBriefs(RequestModel):
    """The briefs to add or check."""

    briefs: Annotated[list[NewBrief], Field(min_length=1, max_length=MOST_BRIEFS)]


class Taken(ApiModel):
    """An accepted brief. `new` is false when it already existed."""

    key: str
    new: bool


class TakenBriefs(ApiModel):
    """The accepted briefs, in the order of the request."""

    videos: list[Taken]


class Checked(ApiModel):
    """How many briefs are valid, and what is wrong with the others."""

    good: int
    errors: list[str]


def register(app: FastAPI) -> None:
    """Add the routes."""
    add(app, "POST", "/briefs", add_briefs, tag=TAG, status=201)
    add(app, "POST", "/briefs/check", check_briefs, tag=TAG)


def add_briefs(request: Request, visit: CurrentVisit, body: NewBriefs, key: IdempotencyKey = None) -> TakenBriefs:
    """Add videos: all of them, or none when a brief is invalid."""
    services = visit.desk.services
    channels = services.channels()
    briefs, errors = _read(visit, body, channels)
    answers = Answers(services.engine)
    if errors:
        # Nothing was added, so no response is stored: the client may send the corrected briefs with the same key.
        return problem(request, 422, f"No brief was added: {errors[0]}", errors=errors)  # type: ignore[return-value]
    catalogue = services.catalogue()
    catalogue.put_channels(channels.values())

    def work(connection: Any) -> StoredAnswer:
        added = catalogue.add_in(connection, briefs, source="api", added_by=visit.name)
        fresh = [one.key for one in added if one.new]
        note(connection, [AuditEntry(visit.actor, "add video", one) for one in fresh])
        return StoredAnswer(201, TakenBriefs(videos=[Taken(key=one.key, new=one.new) for one in added]).model_dump(mode="json"))

    said = answers.once(visit.name, key, body.model_dump_json(exclude_unset=True), work)
    return JSONResponse(said.body, said.status)  # type: ignore[return-value]


def check_briefs(visit: CurrentVisit, body: NewBriefs) -> Checked:
    """Check briefs without adding them."""
    briefs, errors = _read(visit, body, visit.desk.services.channels())
    return Checked(good=len(briefs), errors=errors)


def _read(_: Visit, body: NewBriefs, channels: Any) -> tuple[Sequence[Brief], list[str]]:
    """Return the valid briefs, and one line for each invalid one."""
    found: dict[str, Brief] = {}
    errors = []
    for number, given in enumerate(body.briefs, 1):
        try:
            brief = make_brief(given.model_dump(exclude_unset=True), channels)
        except InvalidInput as error:
            errors.append(f"brief {number}: {error}")
            continue
        if brief.fingerprint in found:
            errors.append(f"brief {number}: the request contains the same brief twice")
        found[brief.fingerprint] = brief
    return list(found.values()), errors
