"""Search videos as on the pipeline page, and read one with its whole history."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from fastapi import FastAPI, Query

from phantoms_dagster.desk.api.routes import add
from phantoms_dagster.desk.api.values import MOST_NUMBER, ApiModel, Cursor, KeyInPath, Limit, Masked, MaskedRow
from phantoms_dagster.desk.masking import masked
from phantoms_dagster.desk.pages.pipeline import line_of, outages_of
from phantoms_dagster.desk.visits import CurrentVisit
from phantoms_dagster.domain.errors import NotFound
from phantoms_dagster.domain.outlook import Outages
from phantoms_dagster.domain.search import MOST_CHARACTERS, parse
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.store.board import MOST_COUNTED, BoardRow
from phantoms_dagster.store.story import Stories

TAG = "videos"
Wanted = Annotated[
    str, Query(max_length=MOST_CHARACTERS, description="Words and qualifiers, such as `stage:render state:failed since:6h`")
]


class StageResource(ApiModel):
    """The state of a stage, and the reason for it."""

    stage: str
    state: str
    changed_at: datetime
    ready_at: datetime | None
    retry_at: datetime | None
    error_class: str | None
    reason: Masked | None


class SummaryResource(ApiModel):
    """The most important stage of a video. `more` counts the other stages in the same situation."""

    stage: str
    state: str
    note: Masked
    more: int


class VideoResource(ApiModel):
    """A video and the states of its stages."""

    key: str
    title: str
    channel: str
    platforms: list[str]
    created_at: datetime
    publish_at: datetime | None
    priority: int
    held_by: str | None
    retired_at: datetime | None
    stages: list[StageResource]
    news: SummaryResource | None


class Videos(ApiModel):
    """A page of videos, newest first. `total` is the number of matches, up to 1,001."""

    videos: list[VideoResource]
    total: int
    next_cursor: int | None


class TimelineEntry(ApiModel):
    """An entry of the timeline."""

    at: datetime
    kind: str
    title: str
    detail: Masked
    tone: str
    run_id: str | None
    ended_at: datetime | None
    cost: Decimal | None
    evidence: MaskedRow | None
    url: str | None


class PostResource(ApiModel):
    """A post in the ledger."""

    platform: str
    account: str | None
    state: str
    url: str | None
    sandbox: bool
    attempted_at: datetime | None
    published_at: datetime | None


class StoryResource(VideoResource):
    """A video with its brief and its timeline, oldest first. `cut`: the timeline has only the newest attempts."""

    brief: dict[str, Any]
    cost: Decimal
    posts: list[PostResource]
    timeline: list[TimelineEntry]
    cut: bool


def register(app: FastAPI) -> None:
    """Add the routes."""
    add(app, "GET", "/videos", list_videos, tag=TAG)
    add(app, "GET", "/videos/{key}", show_video, tag=TAG)


def list_videos(visit: CurrentVisit, q: Wanted = "", cursor: Cursor = None, limit: Limit = 50) -> Videos:
    """Search videos. Without `q`, list all videos except retired ones."""
    board = visit.desk.board
    search = parse(q, now=datetime.now(UTC), channels=board.channels())
    rows = board.rows(search, before=cursor or MOST_NUMBER, limit=limit + 1)
    outages = outages_of(visit)
    return Videos(
        videos=[VideoResource(**_fields(row, outages)) for row in rows[:limit]],
        total=min(board.count(search), MOST_COUNTED + 1),
        next_cursor=rows[limit - 1].id if len(rows) > limit else None,
    )


def show_video(visit: CurrentVisit, key: KeyInPath) -> StoryResource:
    """Return a video with its whole history."""
    story = Stories(visit.desk.reading).of(key)
    if story is None:
        raise NotFound(f"There is no video {key}.")
    [row] = visit.desk.board.of([key])
    return StoryResource(
        **_fields(row, outages_of(visit)),
        brief=story.video["brief"],
        cost=story.video["cost"],
        posts=[PostResource(**{name: post[name] for name in PostResource.model_fields}) for post in story.posts],
        timeline=[_happening(one) for one in story.happenings],
        cut=story.cut,
    )


def _happening(one: Any) -> TimelineEntry:
    fields = {name: getattr(one, name) for name in TimelineEntry.model_fields}
    return TimelineEntry(**{**fields, "evidence": dict(one.evidence) if one.evidence else None, "title": masked(one.title)})


def _fields(row: BoardRow, outages: Outages) -> dict[str, Any]:
    news = line_of(row, outages).news
    stages = [
        StageResource(stage=name, changed_at=row.changed_at[name], **vars(row.stages[name]))
        for name in STAGES
        if name in row.stages
    ]
    given = {name: getattr(row, name) for name in ("key", "title", "channel", "created_at", "publish_at", "priority")}
    return {
        **given,
        "platforms": list(row.platforms),
        "held_by": row.held_by,
        "retired_at": row.retired_at,
        "stages": stages,
        "news": SummaryResource.model_validate(news) if news else None,
    }
