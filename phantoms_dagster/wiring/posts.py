"""What people do with single posts, for commands and the desk: settle one, and take one down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import PostStanding
from phantoms_dagster.domain.reconciliation import post_reference
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.production.reconciliation import ClaimedPost, check_claim
from phantoms_dagster.production.takedown import check_deleted, take_down
from phantoms_dagster.registry.channel_keys import GATEWAY
from phantoms_dagster.store.audit import Actor
from phantoms_dagster.store.post_changes import PostChanges
from phantoms_dagster.store.posts import LedgerPost, Posts
from phantoms_dagster.store.reconciliation import Reconciliation, SeenPost
from phantoms_dagster.wiring.endpoints import gateway_of
from phantoms_dagster.wiring.platforms import can
from phantoms_dagster.wiring.services import Services

if TYPE_CHECKING:
    from phantoms_dagster.wiring.pipeline import Pipeline

T = TypeVar("T")


class PostDecisions:
    """Decisions of people about posts whose outcome is unknown, and about drafts. Not to be called on an event loop."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._store = Reconciliation(services.engine)

    def is_there(self, key: str, platform: Platform, given: str, actor: Actor, *, unread: bool = False) -> SeenPost:
        """Save that the post is there, after reading it. `given`: its URL or id.

        `unread`: the person has seen the post although the platform does not show it to us, so it is not read. Raises InvalidInput.
        """
        post = self._unsettled(key, platform)
        reference = post_reference(platform, given, sandbox=post.sandbox)
        claimed = ClaimedPost(key, platform, post.account, reference, post.attempted_at)
        standing = None if unread else self._look(claimed, by_gateway=post.route == GATEWAY)
        url = given.strip() if "://" in given else ""
        if standing is None:
            seen = SeenPost(reference, url, None, f"not read at {platform.title}: {url or reference}")
        else:
            seen = SeenPost(standing.remote_id, standing.url or url, standing.published_at, standing.evidence)
        self._store.is_there(key, platform, seen, actor)
        return seen

    def is_not_there(self, key: str, platform: Platform, actor: Actor, *, reason: str = "") -> None:
        """Save that the post is not there, so that it is published from the start. Raises InvalidInput."""
        self._store.is_not_there(key, platform, actor, reason)

    def will_not_be_posted(self, key: str, platform: Platform, actor: Actor, *, reason: str = "") -> None:
        """Save that the creator will not post the draft. Its stage is discarded. Raises InvalidInput."""
        self._store.will_not_be_posted(key, platform, actor, reason)

    def _unsettled(self, key: str, platform: Platform) -> LedgerPost:
        post = Posts(self._services.engine).show(key, platform).post
        if post.state not in (PostState.UNKNOWN, PostState.HANDED_OVER):
            message = (
                f"the post of {key} on {platform.title} is {post.state}, not unknown or handed_over: there is nothing to decide"
            )
            raise InvalidInput(message)
        check_place(self._services, post)
        return post

    def _look(self, claimed: ClaimedPost, *, by_gateway: bool) -> PostStanding | None:
        async def work(pipeline: Pipeline) -> PostStanding | None:
            reads = pipeline.reads_of(by_gateway=by_gateway)
            return await check_claim(claimed, reads.posts, reads.identities, self._services.clock.now())

        return with_pipeline(self._services, work)


class Takedowns:
    """Deletes published posts at their platforms. Not to be called on an event loop."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def removable(self, platform: Platform) -> bool:
        """Whether the platform's API deletes posts."""
        return can(platform, "post_remover")

    def find(self, key: str, platform: Platform) -> LedgerPost:
        """The published post. Raises NotFound, and InvalidInput when there is nothing to take down."""
        post = Posts(self._services.engine).show(key, platform).post
        if post.state not in (PostState.PUBLISHED, PostState.CONFIRMED) or post.remote_id is None:
            if post.state is PostState.HANDED_OVER:
                raise InvalidInput(
                    f"the post of {key} on {platform.title} is a draft that waits for its creator: delete it in the app, then run "
                    f"`phantoms posts settle {key} {platform} --not-there`"
                )
            hint = f"; see `phantoms posts show {key} {platform}`" if post.state is PostState.UNKNOWN else ""
            raise InvalidInput(f"the post of {key} on {platform.title} is {post.state}: there is nothing to take down{hint}")
        check_place(self._services, post)
        return post

    def take_down(self, post: LedgerPost, actor: Actor, *, by_hand: bool = False) -> str:
        """Delete the post and record it. Returns the evidence.

        `by_hand`: a person has deleted it at the platform, so it is only looked for.
        """
        remote_id = post.remote_id or ""
        if not by_hand and not self.removable(post.platform):
            raise InvalidInput(
                f"the API of {post.platform.title} cannot delete posts: delete {post.url or remote_id} in its app, then run "
                f"`phantoms posts takedown {post.key} {post.platform} --done`"
            )

        async def work(pipeline: Pipeline) -> str:
            readers = pipeline.reads_of(by_gateway=post.route == GATEWAY).posts
            if by_hand:
                return await check_deleted(post.platform, post.account, remote_id, readers)
            return await take_down(post.platform, post.account, remote_id, pipeline.removers, readers)

        evidence = with_pipeline(self._services, work)
        PostChanges(self._services.engine).taken_down(post.id, post.key, str(post.platform), evidence, actor)
        return evidence


def check_place(services: Services, post: LedgerPost) -> None:
    """Raise InvalidInput when a post of the sandbox would be looked for at the real platform, or the other way round."""
    behind = gateway_of(post.platform) if post.route == GATEWAY else str(post.platform)
    if post.platform.spec.remote and post.sandbox != services.endpoints.sandboxed(behind):
        place = "the sandbox" if post.sandbox else f"the real {post.platform.title}"
        raise InvalidInput(f"the post of {post.key} is in {place}, which answers no calls now; see `phantoms settings sandbox`")


def with_pipeline(services: Services, work: Callable[[Pipeline], Awaitable[T]]) -> T:
    """Run `work` with a pipeline of its own, on an event loop of its own: threads of the desk may do so side by side."""
    # It imports every provider, which takes 75 MB. The desk shows its pages without it.
    from phantoms_dagster.wiring.pipeline import open_pipeline  # noqa: PLC0415

    async def run() -> T:
        async with open_pipeline(services.settings, services.endpoints, services.clock, services.database_url) as pipeline:
            return await work(pipeline)

    return asyncio.run(run())
