"""Bulk actions: a list, and a page for each with its done, failed and pending steps and a stop button."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import Response

from phantoms_dagster.desk.pages.pipeline import VERBS
from phantoms_dagster.desk.render import page, redirect_to
from phantoms_dagster.desk.visits import CurrentVisit
from phantoms_dagster.store.bulk import NEWEST

ROWS = 50
STATES = ("failed", "pending", "done")


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/bulk", include_in_schema=False)(actions)
    app.get("/bulk/{number}", include_in_schema=False)(action)
    app.post("/bulk/{number}/stop", include_in_schema=False)(stop)
    app.post("/bulk/{number}/go-on", include_in_schema=False)(go_on)


def actions(visit: CurrentVisit, before: int = NEWEST) -> Response:
    """List the bulk actions, newest first."""
    found = visit.desk.bulk.latest(before=before, limit=ROWS + 1)
    counts = visit.desk.bulk.counts_of([one.id for one in found[:ROWS]])
    rows = [(one, counts[one.id]) for one in found[:ROWS]]
    older = found[ROWS - 1].id if len(found) > ROWS else None
    return page(visit, "bulk_list.html", rows=rows, verbs=VERBS, older=older, newest=before >= NEWEST)


def action(visit: CurrentVisit, number: int, state: str = "", after: int = 0) -> Response:
    """Show a bulk action and its steps."""
    bulk, counts = visit.desk.bulk.get(number), visit.desk.bulk.counts(number)
    shown = state if state in STATES else next((name for name in STATES if counts[name]), "done")
    items = visit.desk.bulk.items(number, shown, after=after, limit=ROWS + 1)
    return page(
        visit,
        "bulk.html",
        bulk=bulk,
        verb=VERBS[bulk.action],
        counts=counts,
        total=sum(counts.values()),
        shown=shown,
        states=STATES,
        items=items[:ROWS],
        following=items[ROWS - 1].n if len(items) > ROWS else None,
        first=after == 0,
        canary=visit.desk.bulk.canary(number) if bulk.state == "canary" else None,
    )


def stop(visit: CurrentVisit, number: int) -> Response:
    """Stop a bulk action. No further step starts."""
    visit.desk.bulk.stop(number, visit.actor)
    return redirect_to(visit, f"/bulk/{number}", "Stopped. Finished steps stay as they are; no new step starts.", "info")


def go_on(visit: CurrentVisit, number: int) -> Response:
    """Run the remaining steps."""
    visit.desk.bulk.go_on(number, visit.actor)
    return redirect_to(visit, f"/bulk/{number}", "Running the remaining steps.")
