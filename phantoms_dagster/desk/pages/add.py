"""Add briefs: a form for one, and a file that is checked before anything is stored. The messages are those of `phantoms import`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from phantoms_dagster.desk.render import page, redirect_to
from phantoms_dagster.desk.visits import CurrentVisit, Form, Visit, field
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.local_times import read_local
from phantoms_dagster.domain.models import Brief, Channel, Platform
from phantoms_dagster.production.intake import FIELDS, SUFFIXES, Accepted, Batch, Refusal, make_brief, printable, read
from phantoms_dagster.store.audit import AuditEntry, note
from phantoms_dagster.store.catalogue import Added

SHOWN = 200
# The valid rows go to the browser and come back, URL-encoded, when the user confirms them.
MOST_BYTES = 4_000_000
# Far above every limit, so that a text that is too long causes a message instead of being cut off.
MOST = 50_000


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/add", include_in_schema=False)(form_of_add)
    app.post("/add", include_in_schema=False)(add)
    app.post("/add/check", include_in_schema=False)(check)
    app.post("/add/take", include_in_schema=False)(take)


@dataclass(frozen=True)
class ImportLine:
    """A row of the check's report. `where` is its line in the file, or its title when the line is not known."""

    where: str
    text: str


def form_of_add(visit: CurrentVisit, channel: str = "") -> Response:
    """Show the empty form for a channel."""
    return _form(visit, {"channel": channel})


def add(visit: CurrentVisit, form: Form) -> Response:
    """Add one brief. On an error, show the form again with the message and what was typed."""
    channels = visit.desk.services.channels()
    given = _given(form)
    try:
        brief = make_brief(_as_brief(given, channels), channels)
    except InvalidInput as error:
        return _form(visit, given, wrong=str(error))

    def noted(added: Sequence[Added]) -> list[AuditEntry]:
        after = {"title": brief.title, "channel": brief.channel}
        return [AuditEntry(visit.actor, "add video", one.key, after=after) for one in added if one.new]

    [added] = _stored(visit, channels, [brief], "desk", noted)
    if not added.new:
        return _form(visit, given, wrong="This brief already exists", known=added.key)
    said = f"Added {added.key}. The video is made automatically and then waits for your decision."
    return redirect_to(visit, f"/add?channel={quote(brief.channel)}", said)


def check(visit: CurrentVisit, form: Form) -> Response:
    """Check a file and show which rows are valid, and why the others are not. Nothing is stored."""
    file = form.get("file")
    if not isinstance(file, UploadFile) or not file.filename:
        raise InvalidInput(f"choose a file first: {', '.join(SUFFIXES)}")
    name = printable(file.filename, 200)
    content = file.file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise InvalidInput(
            f"{name} is larger than {MOST_BYTES // 1_000_000} MB: split it, or use `phantoms import` or the inbox folder"
        )
    batch = _unknown(visit, name, read(name, content, visit.desk.services.channels()))
    return page(
        visit,
        "add_check.html",
        name=name,
        good=[ImportLine(_where(one), one.brief.title) for one in batch.accepted[:SHOWN]],
        briefs=[one.brief for one in batch.accepted[:SHOWN]],
        count_good=len(batch.accepted),
        refused=[ImportLine(_where(one), one.reason) for one in batch.refused],
        count_refused=batch.rows_refused,
        shown=SHOWN,
        rows="\n".join(json.dumps(_row(one.brief), ensure_ascii=False) for one in batch.accepted),
        taken=None,
    )


def take(visit: CurrentVisit, form: Form) -> Response:
    """Store the rows that a check found valid. They are checked again, because the browser could have changed them."""
    rows, name = form.get("rows"), printable(field(form, "name"), 200) or "briefs"
    if not isinstance(rows, str) or not rows.strip():
        raise InvalidInput("there is nothing to add; choose a file first")
    channels = visit.desk.services.channels()
    batch = read("rows.jsonl", rows.encode("utf-8", "replace"), channels)

    def noted(added: Sequence[Added]) -> list[AuditEntry]:
        new = sum(one.new for one in added)
        return [AuditEntry(visit.actor, "import briefs", name, after={"taken": new})] if new else []

    added = _stored(visit, channels, [one.brief for one in batch.accepted], f"import:{name}", noted)
    refused = [ImportLine("a row", one.reason) for one in batch.refused]
    for row, one in zip(batch.accepted, added, strict=True):
        if not one.new:
            refused.append(ImportLine(row.brief.title, f"duplicate: this brief is already {one.key}"))
    return page(
        visit,
        "add_check.html",
        name=name,
        count_refused=len(refused),
        good=[],
        briefs=[],
        count_good=0,
        refused=refused,
        shown=SHOWN,
        rows="",
        taken=[one.key for one in added if one.new],
    )


def _stored(
    visit: Visit,
    channels: Mapping[str, Channel],
    briefs: Sequence[Brief],
    source: str,
    noted: Callable[[Sequence[Added]], list[AuditEntry]],
) -> list[Added]:
    """Store the briefs and their audit log entries in one transaction."""
    catalogue = visit.desk.services.catalogue()
    catalogue.put_channels(channels.values())
    with visit.desk.services.engine.begin() as connection:
        added = catalogue.add_in(connection, briefs, source=source, added_by=visit.name)
        note(connection, noted(added))
    return added


# --- the form


def _form(visit: Visit, given: Mapping[str, Any], *, wrong: str = "", known: str = "") -> Response:
    channels = visit.desk.services.channels()
    name = given.get("channel") or next(iter(channels))
    if name not in channels:
        raise InvalidInput(f"there is no channel {printable(name, 60)}; the channels are {', '.join(channels)}")
    channel = channels[name]
    blank = {"title": "", "angle": "", "facts": "", "publish_at": "", "priority": "", "platforms": None}
    return page(
        visit,
        "add.html",
        status=422 if wrong else 200,
        channels=list(channels),
        channel=channel,
        platforms=[platform for platform in Platform if platform in channel.accounts],
        given={**blank, **given},
        wrong=wrong,
        known=known,
        suffixes=SUFFIXES,
        fields=FIELDS,
        megabytes=MOST_BYTES // 1_000_000,
    )


def _given(form: FormData) -> dict[str, Any]:
    """Return the fields as the user typed them."""
    names = ("title", "angle", "facts", "channel", "publish_at", "priority")
    ticked = [name for name in form.getlist("platforms") if isinstance(name, str)]
    return {**{name: field(form, name, most=MOST) for name in names}, "platforms": ticked}


def _as_brief(given: Mapping[str, Any], channels: Mapping[str, Channel]) -> dict[str, Any]:
    """Convert the form to a row as in a file: one fact per line, and the time in the channel's time zone."""
    channel = channels.get(given["channel"])
    at = given["publish_at"]
    if at and channel is not None:
        at = read_local(at, channel.timezone).isoformat()
    if not given["platforms"]:
        raise InvalidInput("select at least one platform")
    return {**given, "facts": [line for line in given["facts"].splitlines() if line.strip()], "publish_at": at or None}


# --- a file


def _unknown(visit: Visit, name: str, batch: Batch) -> Batch:
    """Return the batch with rows that already exist moved to the refused ones."""
    known = visit.desk.services.catalogue().known([one.brief.fingerprint for one in batch.accepted])
    good = [one for one in batch.accepted if one.brief.fingerprint not in known]
    there = [
        Refusal(name, one.line, f"duplicate: this brief is already {known[one.brief.fingerprint]}", one.entry)
        for one in batch.accepted
        if one.brief.fingerprint in known
    ]
    return Batch(good, sorted([*batch.refused, *there], key=lambda refusal: refusal.line), batch.held)


def _where(row: Accepted | Refusal) -> str:
    return f"line {row.line}" + ("" if row.entry is None else f", entry {row.entry}")


def _row(brief: Brief) -> dict[str, Any]:
    """Convert a brief to a row as in a file."""
    dumped = brief.model_dump(mode="json")
    return {name: dumped[name] for name in FIELDS if dumped.get(name) not in (None, "", [])}
