"""Edit the texts of a video, from the review. When saving fails, the page keeps what was typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.datastructures import FormData
from starlette.responses import Response

from phantoms_dagster.desk.pages.media import address
from phantoms_dagster.desk.pages.review import Filters
from phantoms_dagster.desk.render import page, redirect_to
from phantoms_dagster.desk.visits import CurrentVisit, Form, Visit, field
from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.models import Script
from phantoms_dagster.domain.script_edits import (
    CAPTION,
    HASHTAGS,
    HEADLINE,
    HOOK,
    NARRATION,
    TITLE,
    EditedTexts,
    ScriptEdit,
    already_posted,
    named_texts,
)
from phantoms_dagster.store.decisions import DecidedFirst

# Far above every limit, so that a text that is too long causes a message instead of being cut off.
MOST = 50_000


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/review/{key}/edit", include_in_schema=False)(form_of_edit)
    app.post("/review/{key}/edit", include_in_schema=False)(edit)


@dataclass(frozen=True)
class Field:
    """An editable text: as stored, and as in the form. `rows` is the height of its field; 1 means a single line."""

    name: str
    label: str
    text: str
    stored: str
    rows: int
    most: str


def form_of_edit(visit: CurrentVisit, key: str, channel: str = "", held: str = "", platform: str = "") -> Response:
    """Show the form with the stored texts."""
    return _form(visit, key, Filters(channel, held == "1", platform), {})


def edit(visit: CurrentVisit, key: str, form: Form) -> Response:
    """Save the changed texts. On an error, show the form again with the message and what was typed."""
    filters = Filters(field(form, "channel"), field(form, "held") == "1", field(form, "platform"))
    # Untouched fields are not saved: another user may have edited them in the meantime.
    sent = {name: _sent(form, name) for name in form if name.startswith(_NAMES)}
    typed = {name: text for name, text in sent.items() if text != _sent(form, f"was-{name}")}
    try:
        edits = visit.desk.services.text_edits()
        edited = edits.edit(key, _edit(typed), visit.actor, content_sha256=field(form, "content", most=64) or None)
    except NotFound:
        raise
    except InvalidInput as error:
        return _form(visit, key, filters, typed, error=error, looked_at=field(form, "content", most=64))
    return redirect_to(visit, filters.path(key), _told(edited), "good" if any(edited.differences) else "info")


_NAMES = ("title", "caption", "hashtags", "hook", "narration-", "headline-")


def _form(
    visit: Visit,
    key: str,
    filters: Filters,
    typed: Mapping[str, str],
    *,
    error: InvalidInput | None = None,
    looked_at: str = "",
) -> Response:
    screen = visit.desk.queue.screen(key)
    if screen is None:
        raise NotFound(f"There is no video {key}.")
    if screen.script is None:
        raise error or InvalidInput(f"{key} has no script yet, so there is nothing to edit")
    review = visit.desk.decisions.review(key)
    out = [platform for platform in screen.brief.platforms if screen.states.get(f"{platform}/post") == "done"]
    return page(
        visit,
        "edit.html",
        status=200 if error is None else 409 if isinstance(error, DecidedFirst) else 422,
        screen=screen,
        filters=filters,
        back=filters.path(key),
        content=review.content if review else looked_at,
        wrong=str(error) if error else "",
        words=_fields(screen.script.script, typed, _WORDS),
        spoken=_fields(screen.script.script, typed, ("hook", "scene", "headline")),
        video_url=address(visit.desk, screen.master.video) if screen.master else None,
        poster=address(visit.desk, screen.master.thumbnail) if screen.master else None,
        out=already_posted(out) if out else "",
        price=visit.desk.services.retrying().price(screen.voiceover.seconds if screen.voiceover else None),
    )


_WORDS = ("title", "caption", "hashtags")
_ROWS = {"caption": 6, "hook": 2, "scene": 3}
_MOST = {
    "title": f"{TITLE} characters",
    "caption": f"{CAPTION} characters",
    "hashtags": f"{HASHTAGS}, with spaces between",
    "hook": f"{HOOK} characters",
    "scene": f"{NARRATION} characters",
    "headline": f"{HEADLINE} characters; may be empty",
}


def _fields(script: Script, typed: Mapping[str, str], kinds: tuple[str, ...]) -> list[Field]:
    """Return the fields of these kinds, with the typed text, else the stored one."""
    found = []
    for place, stored in named_texts(script):
        kind = place.split()[0]
        if kind in kinds:
            name = _name(place)
            found.append(Field(name, place.capitalize(), typed.get(name, stored), stored, _ROWS.get(kind, 1), _MOST[kind]))
    return found


def _sent(form: FormData, name: str) -> str:
    """Return a form field. Browsers send line breaks as CRLF; they are turned back into LF."""
    return field(form, name, most=MOST).replace("\r\n", "\n")


def _name(place: str) -> str:
    """Return the form field name of a place: `scene 2` is `narration-2`."""
    kind, *_, number = place.split() if " " in place else (place, "")
    return {"scene": f"narration-{number}", "headline": f"headline-{number}"}.get(kind, place)


def _edit(typed: Mapping[str, str]) -> ScriptEdit:
    """Convert the typed fields to a script edit."""

    def numbered(kind: str) -> dict[int, str]:
        found = {name.removeprefix(f"{kind}-"): text for name, text in typed.items() if name.startswith(f"{kind}-")}
        return {int(number): text for number, text in found.items() if number.isdecimal() and len(number) < 4}

    plain = {name: typed.get(name) for name in (*_WORDS, "hook")}
    return ScriptEdit(**plain, narration=numbered("narration"), headlines=numbered("headline"))


def _told(edited: EditedTexts) -> str:
    if not any(edited.differences):
        return "Nothing was changed."
    what = {
        "voiceover": "Saved. The voice and the video are being made again. The video comes back for review when it is rendered.",
        "rendered_video": "Saved. The video is being rendered again. It comes back for review when it is done.",
        None: "Saved. The video stays the same. The new words wait for a decision.",
    }[edited.remakes]
    return " ".join([what, *(f"{note[0].upper()}{note[1:]}." for note in edited.notes)])
