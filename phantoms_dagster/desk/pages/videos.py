"""A video's page: its whole history as one timeline, with links to the details, and its database rows as JSON."""

from __future__ import annotations

import json

from fastapi import FastAPI
from starlette.responses import Response

from phantoms_dagster.desk.masking import evidence_json, masked
from phantoms_dagster.desk.pages.pipeline import line_of, outages_of
from phantoms_dagster.desk.render import page
from phantoms_dagster.desk.visits import CurrentVisit, Visit
from phantoms_dagster.domain.errors import NotFound
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.store.story import Stories, Story


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/videos/{key}", include_in_schema=False)(video)
    app.get("/videos/{key}/raw", include_in_schema=False)(raw)


def video(visit: CurrentVisit, key: str) -> Response:
    """Show the video's history."""
    story = _story(visit, key)
    [row] = visit.desk.board.of([key])
    return page(
        visit,
        "video.html",
        story=story,
        line=line_of(row, outages_of(visit)),
        stages=[story.stages[name] for name in STAGES if name in story.stages],
        run_url=_run_url(visit),
        brief={name: value for name, value in story.video["brief"].items() if name != "title" and value not in (None, "", [], {})},
        # Fields that the platform left empty are not shown.
        handles=[(post, {name: one for name, one in masked(post["handle"]).items() if one is not None}) for post in story.posts],
        out=all(found.state == "done" for name, found in row.stages.items() if STAGES[name].kind == "post"),
        evidence=evidence_json,
    )


def raw(visit: CurrentVisit, key: str) -> Response:
    """Return all database rows of the video as JSON, with secrets masked."""
    content = json.dumps(masked(_story(visit, key).raw), indent=2, default=str, ensure_ascii=False)
    return Response(content, media_type="application/json")


def _story(visit: Visit, key: str) -> Story:
    story = Stories(visit.desk.reading).of(key)
    if story is None:
        raise NotFound(f"There is no video {key}.")
    return story


def _run_url(visit: Visit) -> str:
    """Return the URL prefix of run pages in Dagster; empty when Dagster's URL is not set."""
    base = visit.desk.settings.web.url
    return f"{base.rstrip('/')}/runs/" if base else ""
