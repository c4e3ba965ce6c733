"""List posts, settle those whose outcome is unknown, and take published ones down."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import FastAPI
from pydantic import Field

from phantoms_dagster.desk.api.routes import add
from phantoms_dagster.desk.api.values import ApiModel, KeyInPath, Limit, Masked, PlatformName, RequestModel, TextInQuery, Words
from phantoms_dagster.desk.visits import CurrentVisit
from phantoms_dagster.domain.errors import InvalidInput, NotYet, ProviderError
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.post_changes import STATES_AFTER
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.store.posts import LedgerPost, Posts

TAG = "posts"


class PostResource(ApiModel):
    """A post of the ledger. `now`: its state, or what happened to it since, such as `taken_down`.

    `after_evidence`: how that is known. `after_by`: the person who did it, if one did.
    """

    key: str
    platform: Platform
    account: str
    state: str
    now: str
    remote_id: str | None
    url: str | None
    sandbox: bool
    attempted_at: datetime | None
    published_at: datetime | None
    after: str | None
    after_at: datetime | None
    after_evidence: Masked | None
    after_by: str | None


class PostList(ApiModel):
    """Posts, newest first."""

    posts: list[PostResource]


class PostTry(ApiModel):
    """One attempt at a post or one read of it, and the answer."""

    at: datetime
    outcome: str
    answer: Masked


class PostDetailResource(ApiModel):
    """A post, what was tried, and when it is read again (null: it is not)."""

    post: PostResource
    proof: Masked | None
    tries: list[PostTry]
    next_read: datetime | None


class Settlement(RequestModel):
    """A decision about a post whose outcome is unknown.

    `there`: it is public at `url` (its URL or id), which is read and checked unless you have seen it and `unread` is true.
    `not there`: it is published again. `not posted`: the creator will not finish the draft. `reason`: how you know.
    """

    answer: Literal["there", "not there", "not posted"]
    url: Annotated[Words, Field(max_length=500)] = ""
    unread: bool = False
    reason: Annotated[Words, Field(max_length=1_000)] = ""


class Takedown(RequestModel):
    """A takedown. `done`: you have deleted the post at the platform yourself, so it is only checked and recorded."""

    done: bool = False


def register(app: FastAPI) -> None:
    """Add the routes."""
    add(app, "GET", "/posts", list_posts, tag=TAG)
    add(app, "GET", "/videos/{key}/posts/{platform}", show_post, tag=TAG)
    add(app, "POST", "/videos/{key}/posts/{platform}/settle", settle_post, tag=TAG)
    add(app, "POST", "/videos/{key}/posts/{platform}/takedown", take_post_down, tag=TAG)


def list_posts(
    visit: CurrentVisit,
    platform: PlatformName | None = None,
    account: TextInQuery = "",
    state: TextInQuery = "",
    limit: Limit = 50,
) -> PostList:
    """List posts, newest first. `state` may also be `private`, `blocked`, `gone` or `taken_down`."""
    states = (*PostState, *STATES_AFTER[1:])
    if state and state not in states:
        raise InvalidInput(f"unknown state {state!r}; the states are {', '.join(states)}")
    found = Posts(visit.desk.reading).page(platform=platform, account=account or None, state=state or None, since=None, limit=limit)
    return PostList(posts=[PostResource.model_validate(post) for post in found])


def show_post(visit: CurrentVisit, key: KeyInPath, platform: PlatformName) -> PostDetailResource:
    """Return a post with what was tried."""
    return PostDetailResource.model_validate(Posts(visit.desk.reading).show(key, platform))


def settle_post(visit: CurrentVisit, key: KeyInPath, platform: PlatformName, body: Settlement) -> PostDetailResource:
    """Settle a post whose outcome no read has settled. The decision and its author are in the audit log."""
    from phantoms_dagster.wiring.posts import PostDecisions  # noqa: PLC0415 - it imports every provider

    decisions = PostDecisions(visit.desk.services)
    try:
        match body.answer:
            case "there" if not body.url:
                raise InvalidInput("give the URL or the id of the post that you have found as `url`")
            case "there":
                decisions.is_there(key, platform, body.url, visit.actor, unread=body.unread)
            case "not there":
                decisions.is_not_there(key, platform, visit.actor, reason=body.reason)
            case "not posted":
                decisions.will_not_be_posted(key, platform, visit.actor, reason=body.reason)
    except (ProviderError, NotYet) as error:
        raise InvalidInput(f"{platform.title} could not be read, so nothing was changed: {error}") from error
    return show_post(visit, key, platform)


def take_post_down(visit: CurrentVisit, key: KeyInPath, platform: PlatformName, body: Takedown) -> PostDetailResource:
    """Delete a published post at its platform for good. A repeat changes nothing. The audit log says who did it."""
    take_down(visit, key, platform, done=body.done)
    return show_post(visit, key, platform)


def take_down(visit: CurrentVisit, key: str, platform: Platform, *, done: bool) -> LedgerPost:
    """Take a post down, unless that was done before. Raises InvalidInput when the platform could not be asked."""
    from phantoms_dagster.wiring.posts import Takedowns  # noqa: PLC0415 - it imports every provider

    takedowns = Takedowns(visit.desk.services)
    post = takedowns.find(key, platform)
    if post.after != "taken_down":
        try:
            takedowns.take_down(post, visit.actor, by_hand=done)
        except (ProviderError, NotYet) as error:
            raise InvalidInput(f"{platform.title} did not delete the post: {error}") from error
    return post
