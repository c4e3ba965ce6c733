"""One video's page: its whole story in one timeline, with links to where each part of it can be seen; its rows as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response

from phantoms_dagster.desk.pages.pipeline import line_of, outages_of
from phantoms_dagster.desk.render import page
from phantoms_dagster.desk.visits import Seen, Visit
from phantoms_dagster.domain.errors import NotFound
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.store.story import Stories, Story

MASKED = "***"
# What may open something for others: names of fields, and parameters of addresses.
_SECRET = re.compile(
    r"token|secret|password|authorization|cookie|signature|credential|api[-_]?key|session|upload_?url|upload_?uri", re.IGNORECASE
)
_QUERY = re.compile(r"(https?://[^\s?\"']+)\?[^\s\"']+")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+")


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/videos/{key}", include_in_schema=False)(video)
    app.get("/videos/{key}/raw", include_in_schema=False)(raw)


def video(visit: Seen, key: str) -> Response:
    """The story."""
    story = _story(visit, key)
    [row] = visit.desk.board.of([key])
    return page(
        visit,
        "video.html",
        story=story,
        line=line_of(row, outages_of(visit)),
        stages=[story.stages[name] for name in STAGES if name in story.stages],
        run_url=_run_url(visit),
        brief={name: value for name, value in story.video["brief"].items() if value not in (None, "", [], {})},
        handles=[(post, masked(post["handle"])) for post in story.posts],
        evidence=lambda found: json.dumps(masked(found), indent=1, default=str, ensure_ascii=False)[:4_000],
    )


def raw(visit: Seen, key: str) -> Response:
    """All rows of the video, with secrets masked."""
    content = json.dumps(masked(_story(visit, key).raw), indent=2, default=str, ensure_ascii=False)
    return Response(content, media_type="application/json")


def masked(value: Any) -> Any:
    """The same without what would open something: secret fields, and the parameters of addresses."""
    if isinstance(value, Mapping):
        return {name: MASKED if _SECRET.search(str(name)) and part else masked(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(part) for part in value]
    if isinstance(value, str):
        return _BEARER.sub(rf"\1 {MASKED}", _QUERY.sub(rf"\1?{MASKED}", value))
    return value


def _story(visit: Visit, key: str) -> Story:
    story = Stories(visit.desk.workshop.engine).of(key)
    if story is None:
        raise NotFound(f"There is no video {key}.")
    return story


def _run_url(visit: Visit) -> str:
    """What the address of a run begins with; empty when nobody said where Dagster is."""
    base = visit.desk.settings.web_url
    return f"{base.rstrip('/')}/runs/" if base else ""
