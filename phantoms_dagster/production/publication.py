"""What must not happen twice: the engine of posts and of paid jobs, and the only code that saves the state of either.

Each has one request that takes effect: it makes a post public, or it costs money. The engine saves before that request. So
whatever dies, the ledger knows whether it may have left:

- What may have taken effect (`committing`, `sending`, `unknown`) is looked up with `find`, and nothing else is sent.
- A decisive request whose answer is lost becomes `unknown`.
- Only a proof leads back: `NotPublished` for a post, `NotBilled` or `WrittenOff` for a paid job.

The states, the proofs and the verbs are in `domain.publication` and `domain.paid_job`. What a platform or a service asks and
answers is in its adapter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime, timedelta
from pathlib import Path
from typing import Generic, NoReturn, TypeVar

from phantoms_dagster.domain.errors import Disconnected, Permanent, PhantomsError, Rejected, Unknown
from phantoms_dagster.domain.paid_job import (
    Job,
    NotBilled,
    Order,
    PaidFor,
    PaidJournal,
    PaidService,
    PaidState,
    Taken,
    Waits,
    WrittenOff,
)
from phantoms_dagster.domain.ports import Clock, Publisher, PublishJob
from phantoms_dagster.domain.publication import (
    BEFORE_COMMIT,
    MAY_BE_OUT,
    Finding,
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
from phantoms_dagster.production.following import Following, lost

Proof = TypeVar("Proof", NotPublished, NotBilled | WrittenOff)


class _Once(ABC, Generic[Proof]):
    """One call of the engine for one row of a ledger: what posts and paid jobs have in common.

    `_send` sends the decisive request, which leaves only after a save; `_look` asks what became of it.
    """

    async def _commit(self) -> None:
        try:
            answer = await self._send()
        except Unknown:
            await self._answer_lost()
            raise
        await self._settle(answer)

    async def _find(self) -> None:
        await self._settle(await self._look())

    async def _settle(self, answer: RemoteId | Found | Proof | Undecided) -> None:
        """What an answer means for the ledger."""
        match answer:
            case RemoteId():
                await self._took_effect(answer)
            case Found(found):
                await self._took_effect(found)
            case Undecided():
                await self._undecided(answer)
            case proof:
                await self._go_back(proof)

    @abstractmethod
    async def _send(self) -> RemoteId | Proof | Undecided: ...

    @abstractmethod
    async def _look(self) -> Found | Proof | Undecided: ...

    @abstractmethod
    async def _answer_lost(self) -> None: ...

    @abstractmethod
    async def _took_effect(self, answer: RemoteId) -> None: ...

    @abstractmethod
    async def _undecided(self, answer: Undecided) -> None: ...

    @abstractmethod
    async def _go_back(self, proof: Proof) -> None:
        """The only way back. The proof is saved with the step that it allows."""


# --- posts ----------------------------------------------------------------------------------------------------------


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


class _Publication(_Once[NotPublished]):
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

    async def _send(self) -> RemoteId | NotPublished | Undecided:
        """The ledger says `committing` already."""
        return await self._verbs.commit(self._journal.record)

    async def _look(self) -> Finding:
        answer = await self._verbs.find(self._journal.record)
        self._looked = True
        return answer

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

    async def _answer_lost(self) -> None:
        await self._journal.save(PostState.UNKNOWN)

    async def _took_effect(self, post: RemoteId) -> None:
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

    async def _go_back(self, proof: NotPublished) -> None:
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


# --- paid jobs ------------------------------------------------------------------------------------------------------


async def pay(
    service: PaidService[Job], order: Order[Job, Taken], journal: PaidJournal, *, waits: Waits, clock: Clock
) -> PaidFor[Taken]:
    """Order the job, or go on with it from wherever the ledger says it is: wait for it, fetch it. Raises the service's errors.

    What will never bring a file is booked as spent, once, and ordered again by the next attempt. So no job holds a video for ever,
    and the video's budget knows of each one.
    """
    return await _PaidJob(service, order, journal, waits, clock).carried()


class _PaidJob(_Once[NotBilled | WrittenOff], Generic[Job, Taken]):
    """One call of the engine for one paid job."""

    def __init__(
        self, service: PaidService[Job], order: Order[Job, Taken], journal: PaidJournal, waits: Waits, clock: Clock
    ) -> None:
        self._service = service
        self._order = order
        self._journal = journal
        self._waits = waits
        self._clock = clock
        self._fresh = False  # ordered in this call, a moment ago

    async def carried(self) -> PaidFor[Taken]:
        """The job, done and fetched."""
        while True:
            match self._journal.record.state:
                case PaidState.INTENT:
                    self._afford()
                    await self._commit()
                case PaidState.SENDING | PaidState.UNKNOWN:
                    await self._find()
                case PaidState.SUBMITTED | PaidState.DONE:
                    return await self._fetch()

    def _afford(self) -> None:
        """Raises Permanent when the budget is used up."""
        # The order knows what was spent when its claim was made; a job of this very claim may have been booked since.
        spent, budget = max(self._order.spent, self._journal.record.spent), self._order.budget
        if spent > budget:
            message = f"{spent:.2f} USD are spent already and the channel's budget is {budget:.2f} USD a video"
            raise Permanent(message, provider="budget", code="over_budget")

    # --- the order

    async def _send(self) -> RemoteId | NotBilled:
        self._fresh = True
        return await self._service.submit(await self._order.job(), self._about_to_bill)

    async def _about_to_bill(self) -> None:
        await self._journal.save(PaidState.SENDING, attempt_id=self._order.attempt_id)

    async def _answer_lost(self) -> None:
        await self._journal.save(PaidState.UNKNOWN)

    async def _look(self) -> Found | NotBilled | Undecided:
        return await self._service.find(self._journal.record.attempt_id or "")

    async def _took_effect(self, job: RemoteId) -> None:
        await self._journal.save(PaidState.SUBMITTED, remote_id=job.id)

    async def _undecided(self, answer: Undecided) -> None:
        """Never order again before the first one must have ended."""
        if self._journal.record.state is not PaidState.UNKNOWN:
            await self._journal.save(PaidState.UNKNOWN)
        noun = self._order.noun
        left = self._waits.lost_after - (self._clock.now() - self._ordered_at())
        if left < timedelta(0):
            await self._write_off(lost(self._service, self._order, "lost", f"a {noun}'s answer was lost and it never showed up"))
        raise answer.error or Unknown(
            f"a {noun} was sent and its answer lost; it may have been billed, so it is not sent again yet",
            provider=self._service.provider,
            code=f"{noun}_unknown",
            retry_after=left.total_seconds(),
        )

    async def _go_back(self, proof: NotBilled | WrittenOff) -> None:
        if self._journal.record.state is not PaidState.INTENT:  # refused before anything could have been billed
            await self._journal.save(PaidState.INTENT, proof=proof)
        if proof.error is not None:
            raise proof.error

    async def _write_off(self, proof: WrittenOff) -> NoReturn:
        await self._go_back(proof)
        raise proof.error

    async def _fetch(self) -> PaidFor[Taken]:
        remote_id = self._journal.record.remote_id
        assert remote_id is not None, "the database refuses a job that was submitted and has no id"
        job = Following(self._service, self._order, self._waits, self._clock, remote_id, self._ordered_at())
        status = await job.ended(fresh=self._fresh)
        if isinstance(status, WrittenOff):
            await self._write_off(status)
        cost = self._order.price if status.cost is None else status.cost

        async def download(destination: Path) -> None:
            if (gone := await job.downloaded(destination, status, cost)) is not None:
                await self._write_off(gone)

        taken = await self._order.take(download, cost)
        if isinstance(taken, WrittenOff):  # the next attempt must not be given the same file
            await self._write_off(taken)
        await self._journal.save(PaidState.DONE)
        return PaidFor(taken, remote_id, cost)

    def _ordered_at(self) -> datetime:
        return self._journal.record.attempted_at or self._clock.now()
