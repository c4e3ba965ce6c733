"""Read and edit the texts of a rendered video."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI
from pydantic import Field, model_validator

from phantoms_dagster.desk.api.routes import add
from phantoms_dagster.desk.api.values import ApiModel, KeyInPath, RequestModel
from phantoms_dagster.desk.visits import CurrentVisit
from phantoms_dagster.domain.errors import NotFound
from phantoms_dagster.domain.script_edits import ScriptEdit, named_texts

TAG = "review"
# The limit of one request. The use case checks the limit of each text.
Typed = Annotated[str, Field(max_length=4_000)]


class SceneEdit(RequestModel):
    """New texts of a scene. Omitted fields stay. `number` counts from 1."""

    number: Annotated[int, Field(ge=1, le=99)]
    narration: Typed | None = None
    headline: Typed | None = None


class EditTexts(RequestModel):
    """New texts. Omitted fields stay. `content` is the hash of the version that the editor saw, from `GET .../review`."""

    content: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    title: Typed | None = None
    caption: Typed | None = None
    hashtags: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=50)] | None = None
    hook: Typed | None = None
    scenes: Annotated[list[SceneEdit], Field(max_length=50)] | None = None

    @model_validator(mode="after")
    def _something(self) -> EditTexts:
        if not self.scenes and all(text is None for text in (self.title, self.caption, self.hashtags, self.hook)):
            raise ValueError("there is nothing to change")
        numbers = [scene.number for scene in self.scenes or ()]
        if len(set(numbers)) != len(numbers):
            raise ValueError("the same scene appears twice")
        return self


class Place(ApiModel):
    """A text and its place: `title`, `caption`, `hashtags`, `hook`, `scene 1` or `headline of scene 1`."""

    place: str
    text: str


class Texts(ApiModel):
    """The texts of a video. `content` is the hash that an edit or approval must send; null before the video is rendered."""

    key: str
    content: str | None
    texts: list[Place]


class TextChange(ApiModel):
    """A text before and after."""

    place: str
    old: str
    new: str


class Edited(ApiModel):
    """The result of an edit. `remakes` is the first stage that runs again because of it; null when the video stays."""

    key: str
    changed: list[TextChange]
    remakes: str | None
    notes: list[str]


def register(app: FastAPI) -> None:
    """Add the routes."""
    add(app, "GET", "/videos/{key}/texts", show_texts, tag=TAG)
    add(app, "POST", "/videos/{key}/texts", edit_texts, tag=TAG)


def show_texts(visit: CurrentVisit, key: KeyInPath) -> Texts:
    """Return the stored texts."""
    screen = visit.desk.queue.screen(key)
    if screen is None:
        raise NotFound(f"There is no video {key}.")
    if screen.script is None:
        raise NotFound(f"{key} has no texts yet: its script is not written.")
    review = visit.desk.decisions.review(key)
    texts = [Place(place=place, text=text) for place, text in named_texts(screen.script.script)]
    return Texts(key=key, content=review.content if review else None, texts=texts)


def edit_texts(visit: CurrentVisit, key: KeyInPath, body: EditTexts) -> Edited:
    """Change texts of a rendered video. Only the stages that use them run again. An existing approval becomes void."""
    scenes = body.scenes or ()
    edit = ScriptEdit(
        title=body.title,
        caption=body.caption,
        hashtags=None if body.hashtags is None else " ".join(body.hashtags),
        hook=body.hook,
        narration={scene.number: scene.narration for scene in scenes if scene.narration is not None},
        headlines={scene.number: scene.headline for scene in scenes if scene.headline is not None},
    )
    edited = visit.desk.services.text_edits().edit(key, edit, visit.actor, content_sha256=body.content)
    changed = [TextChange(place=place, old=old, new=new) for place, old, new in edited.differences]
    return Edited(key=key, changed=changed, remakes=edited.remakes, notes=list(edited.notes))
