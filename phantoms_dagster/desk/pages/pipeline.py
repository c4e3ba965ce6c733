"""The pipeline: search all videos, see where each is and what it waits for, and act on the selected ones."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastapi import FastAPI, Query
from markupsafe import Markup
from starlette.responses import Response

from phantoms_dagster.desk.render import page, redirect_to, slot
from phantoms_dagster.desk.visits import CurrentVisit, Form, Visit, field, visible_text
from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.outlook import Outages, VideoSummary, summarize
from phantoms_dagster.domain.search import Search, parse, suggestions
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.store.board import MOST_COUNTED, NEWEST, BoardRow, keys_of
from phantoms_dagster.store.bulk import ACTIONS, MOST_ITEMS

ROWS = 50
SAMPLE = 10
OUTAGES_SECONDS = 3.0
VERBS: Mapping[str, str] = {
    "retry": "Retry",
    "hold": "Hold",
    "priority": "Set the priority",
    "move": "Move to another time",
    "discard": "Discard",
    "replay": "Replay",
}
_OUTAGES = "outages"
Keys = Annotated[list[str] | None, Query()]


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/pipeline", include_in_schema=False)(pipeline)
    app.get("/pipeline/act", include_in_schema=False)(ask)
    app.post("/pipeline/act", include_in_schema=False)(act)


@dataclass(frozen=True)
class PipelineLine:
    """A row of the table: the video, its most important stage, and since when it is in that state."""

    video: BoardRow
    news: VideoSummary | None
    since: datetime

    @property
    def marks(self) -> Markup:
        """The markup with a coloured mark per stage."""
        return _marks(tuple((name, self.video.stages[name].state) for name in STAGES if name in self.video.stages))


@dataclass(frozen=True)
class StageLane:
    """The number of videos in each state, for the stages of one kind."""

    kind: str
    ready: int
    running: int
    deferred: int
    failed: int


def pipeline(visit: CurrentVisit, q: str = "", before: int = NEWEST) -> Response:
    """Show the videos that match the search, newest first."""
    board = visit.desk.board
    channels = board.channels()
    problem, found, total = "", [], 0
    try:
        search = parse(q, now=datetime.now(UTC), channels=channels)
    except InvalidInput as error:
        problem = str(error)
    else:
        found, total = board.rows(search, before=before, limit=ROWS + 1), board.count(search)
    outages = outages_of(visit)
    return page(
        visit,
        "pipeline.html",
        status=422 if problem else 200,
        q=" ".join(q.split()),
        problem=problem,
        lines=[line_of(row, outages) for row in found[:ROWS]],
        total=total,
        total_said=f"{MOST_COUNTED:,}+" if total > MOST_COUNTED else f"{total:,}",
        older=found[ROWS - 1].id if len(found) > ROWS else None,
        newest=before >= NEWEST,
        lanes=_lanes(board.counts()),
        suggestions=suggestions(channels),
        outages=outages,
    )


def ask(visit: CurrentVisit, action: str = "", q: str = "", whole: str = "", key: Keys = None) -> Response:
    """Show what the action would do, with its form."""
    if action not in ACTIONS:
        raise InvalidInput(f"there is no action {action!r}; the actions are {', '.join(ACTIONS)}")
    keys = selected(visit, q, whole == "1", key or [])
    return page(
        visit,
        "act.html",
        action=action,
        verb=VERBS[action],
        q=q,
        whole=whole == "1",
        keys=() if whole == "1" else keys,
        count=len(keys),
        sample=[(one, _would(visit, action, one)) for one in keys[:SAMPLE]],
        most=MOST_ITEMS,
        zones=_zones(visit),
    )


def act(visit: CurrentVisit, form: Form) -> Response:
    """Start a bulk action and redirect to its page. Sending the same form again leads to the same bulk action."""
    once = field(form, "once", most=40)
    if once and (known := visit.desk.bulk.made_by(once, visit.actor)) is not None:
        return redirect_to(visit, f"/bulk/{known}")
    action, q = field(form, "action"), field(form, "q")
    whole = field(form, "whole") == "1"
    keys = selected(visit, q, whole, [str(key) for key in form.getlist("key")])
    given = {name: value for name in ("reason", "priority") if (value := visible_text(form, name))}
    if action == "move":
        given["publish_at"] = _moment(field(form, "at"), field(form, "zone"), now=field(form, "now") == "1")
    number = visit.desk.bulk.submit(
        action,
        [(key, None) for key in keys],
        visit.actor,
        arguments=given,
        chosen=(q or "all videos") if whole else "",
        canary=field(form, "canary") == "1",
        once=once or None,
    )
    return redirect_to(visit, f"/bulk/{number}")


def line_of(row: BoardRow, outages: Outages) -> PipelineLine:
    """Return a table row for a video."""
    waiting = {name: found for name, found in row.stages.items() if found.state not in ("done", "blocked")}
    told = summarize(waiting, now=datetime.now(UTC), say=slot, outages=outages.found, accounts=row.accounts)
    since = row.changed_at[told.stage] if told else max(row.changed_at.values(), default=row.created_at)
    return PipelineLine(row, told, since)


def outages_of(visit: Visit) -> Outages:
    """Return the open breakers, cached for OUTAGES_SECONDS."""
    kept = visit.desk.extras.get(_OUTAGES)
    if isinstance(kept, tuple) and time.monotonic() - kept[0] < OUTAGES_SECONDS:
        found: Outages = kept[1]
        return found
    found = visit.desk.services.outages()
    visit.desk.extras[_OUTAGES] = (time.monotonic(), found)
    return found


@lru_cache(maxsize=2_048)
def _marks(states: tuple[tuple[str, str], ...]) -> Markup:
    """Return the stage marks of a row. Many videos share the same states, so the cache halves the time of a page of 50 rows."""
    said = ", ".join(f"{name} {state}" for name, state in states)
    each = Markup("").join(Markup('<i class="{0}" title="{1}: {0}"></i>').format(state, name) for name, state in states)
    return Markup('<span class="marks" role="img" aria-label="{}">{}</span>').format(said, each)


def _lanes(counts: Mapping[str, Mapping[str, int]]) -> list[StageLane]:
    kinds = dict.fromkeys(stage.kind for stage in STAGES.values())
    states = ("ready", "running", "deferred", "failed")
    return [
        StageLane(kind, *(sum(counts[s.name].get(state, 0) for s in STAGES.values() if s.kind == kind) for state in states))
        for kind in kinds
    ]


def selected(visit: Visit, q: str, whole: bool, keys: Sequence[str]) -> list[str]:
    """Return the selected keys: the given ones, or with `whole` every result of the search. Raises InvalidInput and NotFound."""
    if whole:
        search: Search = parse(q, now=datetime.now(UTC), channels=visit.desk.board.channels())
        with visit.desk.services.engine.connect() as connection:
            found = keys_of(connection, search, most=MOST_ITEMS + 1)
        if len(found) > MOST_ITEMS:
            raise InvalidInput(f"the search finds more than {MOST_ITEMS:,} videos, too many for one action; narrow it")
        return found
    if not keys:
        raise InvalidInput("nothing is selected: tick some rows, or select everything found")
    unknown = visit.desk.services.catalogue().unknown(list(keys))
    if unknown:
        raise NotFound(f"There is no video {unknown[0]}.")
    return list(dict.fromkeys(keys))


def _would(visit: Visit, action: str, key: str) -> str:
    """Describe what the action would do with one video. Only a retry needs explaining."""
    if action != "retry":
        return ""
    try:
        return "; ".join(visit.desk.services.retrying().plan(key).lines)
    except InvalidInput as error:
        return f"stays as it is: {error}"


def _zones(visit: Visit) -> list[str]:
    return ["UTC", *(zone for zone in visit.desk.board.zones() if zone != "UTC")]


def _moment(at: str, zone: str, *, now: bool) -> str:
    if now:
        return "now"
    try:
        return datetime.fromisoformat(at).replace(tzinfo=ZoneInfo(zone or "UTC")).isoformat()
    except (ValueError, ZoneInfoNotFoundError):
        raise InvalidInput("give the new date and time, such as 2026-12-24 18:00") from None
