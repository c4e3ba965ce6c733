"""The engine that carries a post to published, and the only code that saves a post's state.

It saves before each verb of the platform. So whatever dies, the ledger knows which request may have left:

- A post that may be out (`committing`, `unknown`) is looked up with `find`, and nothing else is sent.
- A `commit` whose answer is lost becomes `unknown`.
- Only a `NotPublished`, the platform's own word that the post is not out, leads back to `upload`, to `open` or to another `commit`.

The states, the proofs and the verbs are in `domain.publication`. What a platform asks and answers is in its adapter.
"""

from __future__ import annotations

from phantoms_dagster.domain.errors import Disconnected, Permanent, PhantomsError, Rejected, Unknown
from phantoms_dagster.domain.ports import Publisher, PublishJob
from phantoms_dagster.domain.publication import (
    BEFORE_COMMIT,
    MAY_BE_OUT,
    Found,
    NotPublished,
    PostJournal,
    Progress,
    PublishedPost,
    PublishVerbs,
    RemoteId,
    Undecided,
)
from phantoms_dagster.domain.stages import PostState


async def publish(publisher: Publisher, job: PublishJob, journal: PostJournal) -> PublishedPost:
    """Make the post, or finish making it from wherever the ledger says it is. Raises the platform's errors.

    A post fails only before its commit: nothing took effect. From there on it stays open, and a replay reads it back first.
    """
    try:
        async with publisher.taking_up(job) as verbs:
            return await _Publication(verbs, journal, account_first=publisher.account_first).carried()
    except (Permanent, Rejected) as error:
        # A token that is refused is the account's trouble: the post waits where it is.
        if journal.record.state in BEFORE_COMMIT and not isinstance(error, Disconnected):
            # The handle stays: what it names is asked before anything else when the post is replayed.
            await journal.save(PostState.FAILED)
        raise


class _Publication:
    """One call of the engine for one post."""

    def __init__(self, verbs: PublishVerbs, journal: PostJournal, *, account_first: bool) -> None:
        self._verbs = verbs
        self._journal = journal
        self._account_first = account_first
        self._looked = False  # what an earlier call left behind has been looked at, or there was nothing
        self._replayed = False  # a failed post is tried again, and what its earlier try left behind is being looked at
        self._told: RemoteId | None = None

    async def carried(self) -> PublishedPost:
        """The post, published and confirmed."""
        while True:
            record = self._journal.record
            left_behind = bool(record.handle) or record.remote_id is not None
            match record.state:
                case PostState.PUBLISHED | PostState.CONFIRMED:
                    return await self._confirm()
                case PostState.FAILED:
                    await self._journal.save(PostState.INTENT)
                case PostState.INTENT if left_behind:
                    # A failed post that is replayed, perhaps by a version that let posts in doubt fail: it is asked for first.
                    await self._journal.save(PostState.OPENED)
                    await self._journal.save(PostState.UNKNOWN)
                    self._replayed = True
                case PostState.INTENT:
                    await self._open()
                case PostState.OPENED if not left_behind:
                    await self._open()
                case PostState.COMMITTING | PostState.UNKNOWN:
                    await self._find()
                case _ if not self._looked:
                    await self._find()
                case _:
                    await self._upload()

    # --- the verbs, each after its save

    async def _open(self) -> None:
        self._verbs.check()
        if self._account_first and self._journal.record.state is PostState.INTENT:
            await self._journal.save(PostState.OPENED, handle={}, offset=0)
        try:
            handle = await self._verbs.open()
        except PhantomsError:
            if self._journal.record.state is PostState.OPENED:  # the account is free for others meanwhile
                nothing = NotPublished("no session, slot or container was opened", then="open")
                await self._settle(nothing)
            raise
        await self._journal.save(PostState.OPENED, handle=handle, offset=0)
        self._looked = True

    async def _upload(self) -> None:
        answer = await self._verbs.upload(self._journal.record)
        if not isinstance(answer, Progress):
            await self._settle(answer)
        elif answer.ready:
            await self._journal.save(PostState.COMMITTING, handle=answer.handle, offset=answer.offset)
            await self._commit()
        else:
            if answer.handle is not None or answer.offset != self._journal.record.offset:
                await self._journal.save(PostState.UPLOADING, handle=answer.handle, offset=answer.offset)
            if answer.error is not None:
                raise answer.error

    async def _commit(self) -> None:
        """The ledger says `committing` already."""
        try:
            answer = await self._verbs.commit(self._journal.record)
        except Unknown:
            await self._journal.save(PostState.UNKNOWN)
            raise
        await self._settle(answer)

    async def _find(self) -> None:
        answer = await self._verbs.find(self._journal.record)
        self._looked = True
        await self._settle(answer)

    async def _confirm(self) -> PublishedPost:
        record, told = self._journal.record, self._told
        if told is not None and told.published_at is not None:
            post = PublishedPost(told.id, told.url or "", told.published_at)
        else:
            post = await self._verbs.confirm(record)
        if record.state is not PostState.CONFIRMED:
            await self._journal.save(PostState.CONFIRMED, url=post.url)
        return post

    # --- what an answer means for the ledger

    async def _settle(self, answer: RemoteId | Found | NotPublished | Undecided) -> None:
        match answer:
            case RemoteId():
                await self._published(answer)
            case Found(post):
                await self._published(post)
            case Undecided():
                await self._undecided(answer)
            case NotPublished():
                await self._not_published(answer)

    async def _published(self, post: RemoteId) -> None:
        if self._journal.record.state not in MAY_BE_OUT:  # it is out although this ledger never sent its commit
            await self._journal.save(PostState.UNKNOWN)
        await self._journal.save(PostState.PUBLISHED, handle=post.handle, remote_id=post.id, url=post.url)
        self._told = post

    async def _undecided(self, answer: Undecided) -> None:
        state = self._journal.record.state
        lost = answer.handle is not None or (answer.error is not None and state is not PostState.UNKNOWN)
        if lost or state not in MAY_BE_OUT:
            await self._journal.save(PostState.UNKNOWN, handle=answer.handle)
        if answer.error is not None:
            raise answer.error

    async def _not_published(self, proof: NotPublished) -> None:
        """The only way back. The proof is saved with the step that it allows."""
        save, record = self._journal.save, self._journal.record
        match proof.then:
            case "open":
                await save(PostState.INTENT, handle={}, offset=0, proof=proof)
            case "upload":
                moved = proof.handle is not None or proof.offset not in (None, record.offset)
                if record.state in MAY_BE_OUT:
                    await save(PostState.OPENED, handle=proof.handle, offset=proof.offset, proof=proof)
                elif moved:
                    await save(PostState.UPLOADING, handle=proof.handle, offset=proof.offset)
            case "find":
                await save(PostState.COMMITTING, handle=proof.handle, offset=proof.offset, remote_id=proof.remote_id, proof=proof)
            case "commit" if proof.error is not None:  # refused in so many words: everything but the commit is there
                await save(PostState.UPLOADING, handle=proof.handle, offset=proof.offset, proof=proof)
            case "commit":
                await save(PostState.COMMITTING, handle=proof.handle, offset=proof.offset, proof=proof)
        replayed, self._replayed = self._replayed, False
        # That the earlier try had failed is what the person knew who replayed it.
        if proof.error is not None and not (replayed and proof.then == "open"):
            raise proof.error
        if proof.then == "commit":
            await self._commit()
