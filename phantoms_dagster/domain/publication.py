"""A publication puts one post on a platform exactly once. This module has its states, its proofs and its five verbs.

`production.publication` is the only code that saves a post's state. It may take only the steps in the table below, and a trigger on
`phantoms.posts` enforces the same table. A platform never sees the ledger: it answers with the values of this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Literal, Protocol, TypeAlias

from phantoms_dagster.domain.errors import IllegalTransition, PhantomsError, ProviderError
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.domain.values import JsonObject

# --- states ---------------------------------------------------------------------------------------------------------

POST_TRANSITIONS: Mapping[PostState, frozenset[PostState]] = MappingProxyType(
    {
        PostState.INTENT: frozenset({PostState.OPENED, PostState.FAILED}),
        PostState.OPENED: frozenset(
            {
                PostState.OPENED,
                PostState.INTENT,
                PostState.UPLOADING,
                PostState.COMMITTING,
                PostState.UNKNOWN,
                PostState.FAILED,
            }
        ),
        PostState.UPLOADING: frozenset(
            {PostState.UPLOADING, PostState.INTENT, PostState.COMMITTING, PostState.UNKNOWN, PostState.FAILED}
        ),
        # From here on the post may be public. Every step back needs a proof.
        PostState.COMMITTING: frozenset(
            {
                PostState.COMMITTING,
                PostState.UNKNOWN,
                PostState.HANDED_OVER,
                PostState.PUBLISHED,
                PostState.UPLOADING,
                PostState.OPENED,
                PostState.INTENT,
            }
        ),
        PostState.UNKNOWN: frozenset(
            {
                PostState.UNKNOWN,
                PostState.HANDED_OVER,
                PostState.COMMITTING,
                PostState.PUBLISHED,
                PostState.OPENED,
                PostState.INTENT,
            }
        ),
        # The platform gave it to the creator as a draft. From here on only the creator can make it public.
        PostState.HANDED_OVER: frozenset({PostState.HANDED_OVER, PostState.PUBLISHED, PostState.INTENT}),
        PostState.PUBLISHED: frozenset({PostState.PUBLISHED, PostState.CONFIRMED}),
        PostState.CONFIRMED: frozenset({PostState.CONFIRMED}),
        PostState.FAILED: frozenset({PostState.INTENT}),  # a replay, with a fresh budget
    }
)

MAY_BE_OUT = (PostState.COMMITTING, PostState.UNKNOWN)
# A second post would be a double: these may be public already, or become public without another request of ours.
OUT_OF_OUR_HANDS = (*MAY_BE_OUT, PostState.HANDED_OVER)
IN_FLIGHT = (PostState.OPENED, PostState.UPLOADING, PostState.COMMITTING)
# The post has begun and has not ended, so what it was made from does not change.
UNDER_WAY = frozenset({*IN_FLIGHT, *OUT_OF_OUR_HANDS})
BEFORE_COMMIT = (PostState.INTENT, PostState.OPENED, PostState.UPLOADING)

# The steps that need a `NotPublished`: those that send a commit again, or allow it to be sent again.
NEEDS_PROOF: frozenset[tuple[PostState, PostState]] = frozenset(
    (before, after)
    for before, steps in POST_TRANSITIONS.items()
    for after in steps
    if (before in OUT_OF_OUR_HANDS and after in (*IN_FLIGHT, PostState.INTENT))
    or (before in IN_FLIGHT and after is PostState.INTENT)
)


def check_step(before: PostState, after: PostState, proof: NotPublished | None) -> None:
    """Raise IllegalTransition for a step that is not in the table or lacks its proof."""
    if after not in POST_TRANSITIONS[before]:
        raise IllegalTransition(f"a post that is {before} cannot become {after}")
    if (before, after) in NEEDS_PROOF and proof is None:
        raise IllegalTransition(f"a post that is {before} becomes {after} only with the proof that it is not published")


# --- the ledger -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PostRecord:
    """The ledger's row of a post. `handle` is the platform's own (session URI, publish id, container id) and opaque to the engine.

    `account`: the account that the post was opened on, even if the channel has since changed its account. `route`: the way on which
    it was begun, in the platform's own terms; empty for the platform's usual one. A later change of the setting does not change it.
    """

    state: PostState
    handle: JsonObject = field(default_factory=dict)
    offset: int = 0
    remote_id: str | None = None
    url: str | None = None
    attempted_at: datetime | None = None
    account: str = ""
    route: str = ""


class PostJournal(Protocol):
    """The ledger's row of the post. Every step is committed before the next request is sent."""

    @property
    def record(self) -> PostRecord:
        """The row as last committed. After a crash it shows the last step that was saved."""
        ...

    async def save(
        self,
        state: PostState,
        *,
        handle: JsonObject | None = None,
        offset: int | None = None,
        remote_id: str | None = None,
        url: str | None = None,
        proof: NotPublished | None = None,
    ) -> PostRecord:
        """Commit a step. None keeps the saved value. Raises IllegalTransition, StaleClaim, or NotYet when the account is busy."""
        ...


# --- what a verb answers --------------------------------------------------------------------------------------------

Handle: TypeAlias = JsonObject


@dataclass(frozen=True)
class Progress:
    """How far an upload is. The engine saves it before the next request. `handle`: None keeps the saved one.

    `ready`: only the commit is left. `error` is raised after the save.
    """

    offset: int
    handle: Handle | None = None
    ready: bool = False
    error: PhantomsError | None = None


@dataclass(frozen=True)
class RemoteId:
    """The request took effect. `id`: the platform's own id of the post, or the service's own id of the paid job."""

    id: str
    url: str | None = None
    handle: Handle | None = None
    published_at: datetime | None = None


@dataclass(frozen=True)
class Found:
    """A read showed that the request took effect."""

    post: RemoteId


@dataclass(frozen=True)
class NotPublished:
    """The proof that the post is not public. `evidence` is one line with the platform's answer. The ledger keeps it.

    `then` says what follows. `open`: start over with an empty handle. `upload`: continue at `offset`. `commit`: the commit may be
    sent. `find`: look again, because the platform has created `remote_id`, which is still hidden.
    `handle`, `offset`: None keeps the saved value. `error` is raised after the save.
    """

    evidence: str
    then: Literal["open", "upload", "commit", "find"]
    handle: Handle | None = None
    offset: int | None = None
    remote_id: str | None = None
    error: PhantomsError | None = None


@dataclass(frozen=True)
class Undecided:
    """The outcome cannot be determined yet. With a `handle` or an `error` the post is saved as `unknown`; then the error is raised.

    Without them the platform has accepted the commit and is processing it.
    """

    handle: Handle | None = None
    error: PhantomsError | None = None


@dataclass(frozen=True)
class HandedOver(Undecided):
    """The platform gave the post to the creator as a draft. It is not public yet, and only the creator can make it public.

    The post is saved as `handed_over`. Then `error` is raised, a NotYet that says when to ask again. The handle has the time under
    `reconciliation.HANDED_OVER_AT`.
    """


@dataclass(frozen=True)
class Withheld:
    """The platform has the post and will never show it. The ledger keeps its state, and the error is raised."""

    error: ProviderError


Finding: TypeAlias = Found | NotPublished | Undecided | Withheld


@dataclass(frozen=True)
class PublishedPost:
    """A public post, as read back from the platform."""

    remote_id: str
    url: str
    published_at: datetime


class PublishVerbs(Protocol):
    """What a platform does for one post, in one call of the engine. Each verb gets the ledger's row as last committed.

    Only `commit` may make a post public, or give it to the creator. Any verb may raise the errors of `domain.errors`. They change
    nothing in the ledger, with one exception: `Unknown` from `commit` means that its answer was lost.
    """

    def check(self) -> None:
        """Refuse a post that the platform would refuse, before anything is sent. Raises Permanent."""
        ...

    async def open(self) -> Handle:
        """Open a session, a slot or a container. This can never make anything public, so losing the answer costs nothing."""
        ...

    async def upload(self, record: PostRecord) -> Progress | Finding:
        """Do one step of the upload, or of waiting until the platform has processed it."""
        ...

    async def commit(self, record: PostRecord) -> RemoteId | NotPublished | Undecided:
        """Send the request that publishes or hands over. Raises Unknown when its answer is lost.

        Returns NotPublished for an explicit refusal, and for a request that `may_go` stopped: the post can then be moved again.
        """
        ...

    async def find(self, record: PostRecord) -> Finding:
        """Find out what an earlier call's requests did. Sends only reads."""
        ...

    async def confirm(self, record: PostRecord) -> PublishedPost:
        """Read a published post back."""
        ...
