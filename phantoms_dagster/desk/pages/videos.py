"""A video's page: its history as one timeline, its database rows as JSON, and the forms that settle posts and drafts."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from fastapi import FastAPI
from starlette.responses import Response

from phantoms_dagster.desk.api.posts import take_down
from phantoms_dagster.desk.masking import evidence_json, masked
from phantoms_dagster.desk.pages.pipeline import line_of, outages_of
from phantoms_dagster.desk.render import page, redirect_to
from phantoms_dagster.desk.visits import CurrentVisit, Form, Visit, field, visible_text
from phantoms_dagster.domain.errors import InvalidInput, NotFound, NotYet, ProviderError
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.production.stages.post import next_opening
from phantoms_dagster.store.preflight import CheckedAccount, CheckedPost, Preflights
from phantoms_dagster.store.sealed_urls import SEALED
from phantoms_dagster.store.story import Stories, Story


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/videos/{key}", include_in_schema=False)(video)
    app.get("/videos/{key}/raw", include_in_schema=False)(raw)
    app.post("/videos/{key}/settle/{platform}", include_in_schema=False)(settle)
    app.get("/videos/{key}/takedown/{platform}", include_in_schema=False)(ask_takedown)
    app.post("/videos/{key}/takedown/{platform}", include_in_schema=False)(takedown)


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
        captions={post["platform"]: _caption(story, post["platform"]) for post in story.posts if post["state"] == "handed_over"},
        handles=[(post, _handle(post["handle"])) for post in story.posts],
        out=all(found.state == "done" for name, found in row.stages.items() if STAGES[name].kind == "post"),
        approved=(found := story.stages.get("approval")) is not None and found["state"] == "done",
        evidence=evidence_json,
        checks=_checks(visit, key),
    )


def raw(visit: CurrentVisit, key: str) -> Response:
    """Return all database rows of the video as JSON, with secrets masked."""
    content = json.dumps(masked(_story(visit, key).raw), indent=2, default=str, ensure_ascii=False)
    return Response(content, media_type="application/json")


def settle(visit: CurrentVisit, key: str, platform: str, form: Form) -> Response:
    """Settle a post whose outcome is unknown, or a draft, as `phantoms posts settle` does."""
    from phantoms_dagster.wiring.posts import PostDecisions  # noqa: PLC0415 - it imports every provider

    on, answer, decisions = _platform(platform), field(form, "answer"), PostDecisions(visit.desk.services)
    try:
        if answer == "there":
            url = field(form, "url").strip()
            if not url:
                raise InvalidInput("give the URL or the id of the post that you have found")
            seen = decisions.is_there(key, on, url, visit.actor, unread=field(form, "unread") == "1")
            said = f"The post on {on.title} is saved as published: {seen.evidence}."
        elif answer == "not there":
            decisions.is_not_there(key, on, visit.actor, reason=visible_text(form, "reason", most=1_000))
            said = f"The post on {on.title} will be published again."
        elif answer == "not posted":
            decisions.will_not_be_posted(key, on, visit.actor, reason=visible_text(form, "reason", most=1_000))
            said = f"The draft on {on.title} is saved as not posted."
        else:
            raise InvalidInput("say whether the post is there or not")
    except (ProviderError, NotYet) as error:
        raise InvalidInput(f"{on.title} could not be read, so nothing was changed: {error}") from error
    return redirect_to(visit, f"/videos/{key}", said)


def ask_takedown(visit: CurrentVisit, key: str, platform: str) -> Response:
    """Show what a takedown would delete, and ask."""
    from phantoms_dagster.wiring.posts import Takedowns  # noqa: PLC0415 - it imports every provider

    takedowns, on = Takedowns(visit.desk.services), _platform(platform)
    post = takedowns.find(key, on)
    if post.after == "taken_down":
        return redirect_to(visit, f"/videos/{key}", f"The post on {on.title} was taken down before.")
    return page(visit, "takedown.html", post=post, removable=takedowns.removable(on))


def takedown(visit: CurrentVisit, key: str, platform: str, form: Form) -> Response:
    """Take the post down, as `phantoms posts takedown` does."""
    on = _platform(platform)
    take_down(visit, key, on, done=field(form, "how") == "done")
    return redirect_to(visit, f"/videos/{key}", f"The post is no longer on {on.title}.")


def _platform(name: str) -> Platform:
    if name not in Platform:
        raise NotFound(f"There is no platform {name}.")
    return Platform(name)


def _caption(story: Story, platform: str) -> str:
    """The words of the post that the creator pastes into the app."""
    variant = story.stages.get(f"{platform}/variant")
    return str((variant["output"] or {}).get("caption", "")) if variant is not None else ""


def _checks(visit: Visit, key: str) -> list[CheckedPost | CheckedAccount]:
    """Return the last checks of the video's posts that are not due yet, and of their accounts."""
    tables = Preflights(visit.desk.reading, next_opening)
    posts = [post for post in tables.posts(key) if post.due_at > datetime.now(UTC)]
    named = {(post.platform, post.account) for post in posts}
    return [*(one for one in tables.accounts() if (one.platform, one.account) in named), *posts] if posts else []


def _story(visit: Visit, key: str) -> Story:
    story = Stories(visit.desk.reading).of(key)
    if story is None:
        raise NotFound(f"There is no video {key}.")
    return story


def _handle(handle: dict[str, object]) -> dict[str, object]:
    """Return a post's handle without the fields that the platform left empty and those that are encrypted."""
    shown = {name: one for name, one in masked(handle).items() if one is not None}
    return {name: one for name, one in shown.items() if not (isinstance(one, str) and one.startswith(SEALED))}


def _run_url(visit: Visit) -> str:
    """Return the URL prefix of run pages in Dagster; empty when Dagster's URL is not set."""
    base = visit.desk.settings.web.url
    return f"{base.rstrip('/')}/runs/" if base else ""
