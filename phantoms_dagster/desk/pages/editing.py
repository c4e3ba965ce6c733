"""Editing from the review: the texts of one video. What was typed stays on the page until it is saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.datastructures import FormData
from starlette.responses import Response

from phantoms_dagster.desk.pages.media import address
from phantoms_dagster.desk.pages.review import Filters
from phantoms_dagster.desk.render import go, page
from phantoms_dagster.desk.visits import Form, Seen, Visit, field
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
    places,
    stays,
)
from phantoms_dagster.store.decisions import DecidedFirst

# Far above every limit: what is too long is said, and not cut off.
MOST = 50_000


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/review/{key}/edit", include_in_schema=False)(form_of_edit)
    app.post("/review/{key}/edit", include_in_schema=False)(edit)


@dataclass(frozen=True)
class Field:
    """A text that can be edited, as it is stored and as it is in the form; `rows`: 1 for one line."""

    name: str
    label: str
    text: str
    stored: str
    rows: int
    most: str


def form_of_edit(visit: Seen, key: str, channel: str = "", held: str = "", platform: str = "") -> Response:
    """The texts as they are."""
    return _form(visit, key, Filters(channel, held == "1", platform), {})


def edit(visit: Seen, key: str, form: Form) -> Response:
    """Save what was changed. What cannot be saved is said above the form, which keeps what was typed."""
    filters = Filters(field(form, "channel"), field(form, "held") == "1", field(form, "platform"))
    # What somebody did not touch is not theirs: it may have been edited by somebody else meanwhile.
    sent = {name: _sent(form, name) for name in form if name.startswith(_NAMES)}
    typed = {name: text for name, text in sent.items() if text != _sent(form, f"was-{name}")}
    try:
        edits = visit.desk.services.text_edits()
        edited = edits.edit(key, _edit(typed), visit.actor, content_sha256=field(form, "content", most=64) or None)
    except NotFound:
        raise
    except InvalidInput as error:
        return _form(visit, key, filters, typed, error=error, looked_at=field(form, "content", most=64))
    return go(visit, filters.path(key), _told(edited), "good" if any(edited.differences) else "info")


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
        raise error or InvalidInput(f"{key} is not written yet: there is nothing to edit")
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
        film=address(visit.desk, screen.film.video) if screen.film else None,
        poster=address(visit.desk, screen.film.thumbnail) if screen.film else None,
        out=stays(out) if out else "",
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
    """The texts of these kinds, as they were typed or else as they are stored."""
    found = []
    for place, stored in places(script):
        kind = place.split()[0]
        if kind in kinds:
            name = _name(place)
            found.append(Field(name, place.capitalize(), typed.get(name, stored), stored, _ROWS.get(kind, 1), _MOST[kind]))
    return found


def _sent(form: FormData, name: str) -> str:
    """A field as it was sent, with the line breaks that browsers change undone."""
    return field(form, name, most=MOST).replace("\r\n", "\n")


def _name(place: str) -> str:
    """The name of the field of a place: `scene 2` is `narration-2`."""
    kind, *_, number = place.split() if " " in place else (place, "")
    return {"scene": f"narration-{number}", "headline": f"headline-{number}"}.get(kind, place)


def _edit(typed: Mapping[str, str]) -> ScriptEdit:
    """What was typed, in the places where it was."""

    def numbered(kind: str) -> dict[int, str]:
        found = {name.removeprefix(f"{kind}-"): text for name, text in typed.items() if name.startswith(f"{kind}-")}
        return {int(number): text for number, text in found.items() if number.isdecimal() and len(number) < 4}

    plain = {name: typed.get(name) for name in (*_WORDS, "hook")}
    return ScriptEdit(**plain, narration=numbered("narration"), headlines=numbered("headline"))


def _told(edited: EditedTexts) -> str:
    if not any(edited.differences):
        return "Nothing is different."
    what = {
        "voiceover": "Saved. Voice and film are made again; the video comes back for a decision when it is rendered.",
        "rendered_video": "Saved. The film is rendered again; the video comes back for a decision then.",
        None: "Saved. The film stays; these words wait for a decision.",
    }[edited.remakes]
    return " ".join([what, *(f"{note[0].upper()}{note[1:]}." for note in edited.notes)])
