"""The engine that keeps posts from being published twice and jobs from being paid twice.

Only this code saves their states, with one exception: a person's decision about an unknown outcome (`store.reconciliation`,
`store.retrying`), whose proof is the person's name.

Each has one decisive request: it makes a post public, or it costs money. The engine saves before that request. So whatever crashes,
the ledger knows whether the request may have left:

- After a state in which it may have left (`committing`, `sending`, `unknown`), the engine only calls `find`. So it does after
  `handed_over`, from which only the creator can publish the post.
- If the answer to a decisive request is lost, the state becomes `unknown`.
- Only a proof leads back: `NotPublished` for a post, `NotBilled` or `WrittenOff` for a paid job.

The states, proofs and verbs are in `domain.publication` and `domain.paid_job`. The requests are in the adapter of each platform or
service.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime, timedelta
from pathlib import Path
from typing import Generic, NoReturn, TypeVar

from phantoms_dagster.domain.errors import Disconnected, Permanent, PhantomsError, Rejected, Unknown
from phantoms_dagster.domain.paid_job import (
    CompletedJob,
    Job,
    JobResult,
    NotBilled,
    Order,
    PaidJournal,
    PaidService,
    PaidState,
    WaitLimits,
    WrittenOff,
)
from phantoms_dagster.domain.ports import Clock, Publisher, PublishJob
from phantoms_dagster.domain.publication import (
    BEFORE_COMMIT,
    MAY_BE_OUT,
    OUT_OF_OUR_HANDS,
    Finding,
    Found,
    HandedOver,
    NotPublished,
    PostJournal,
    Progress,
    PublishedPost,
    PublishVerbs,
    RemoteId,
    Undecided,
    Withheld,
)
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.production.paid_job_polling import PaidJobPoller, written_off

Proof = TypeVar("Proof", NotPublished, NotBilled | WrittenOff)


class _ExactlyOnce(ABC, Generic[Proof]):
    """One call of the engine for one ledger row. It has what posts and paid jobs share.

    `_send` sends the decisive request, after a save. `_find_outcome` asks what that request did.
    """

    async def _commit(self) -> None:
        try:
            answer = await self._send()
        except Unknown:
            await self._answer_lost()
            raise
        await self._settle(answer)

    async def _find(self) -> None:
        await self._settle(await self._find_outcome())

    async def _settle(self, answer: RemoteId | Found | Proof | Undecided | Withheld) -> None:
        """Save what the answer means."""
        match answer:
            case RemoteId():
                await self._took_effect(answer)
            case Found(found):
                await self._took_effect(found)
            case Undecided():
                await self._undecided(answer)
            case Withheld(error):
                raise error
            case proof:
                await self._go_back(proof)

    @abstractmethod
    async def _send(self) -> RemoteId | Proof | Undecided: ...

    @abstractmethod
    async def _find_outcome(self) -> Found | Proof | Undecided | Withheld: ...

    @abstractmethod
    async def _answer_lost(self) -> None: ...

    @abstractmethod
    async def _took_effect(self, answer: RemoteId) -> None: ...

    @abstractmethod
    async def _undecided(self, answer: Undecided) -> None: ...

    @abstractmethod
    async def _go_back(self, proof: Proof) -> None:
        """Take the only way back. The proof is saved together with the step that it allows."""


# --- posts ----------------------------------------------------------------------------------------------------------


async def publish(publisher: Publisher, job: PublishJob, journal: PostJournal) -> PublishedPost:
    """Publish the post, continuing from the state in the ledger. Raises the platform's errors.

    A post can fail only before its commit, when nothing has taken effect. After that it stays open, and a replay reads it back
    first.
    """
    try:
        async with publisher.verbs(job) as verbs:
            return await _Publication(verbs, journal, account_first=publisher.account_first).run()
    except (Permanent, Rejected) as error:
        # A refused token is the account's problem, so the post keeps its state and waits.
        if journal.record.state in BEFORE_COMMIT and not isinstance(error, Disconnected):
            # The handle stays, so that a replay can look first at what it names.
            await journal.save(PostState.FAILED)
        raise


class _Publication(_ExactlyOnce[NotPublished]):
    """One call of the engine for one post."""

    def __init__(self, verbs: PublishVerbs, journal: PostJournal, *, account_first: bool) -> None:
        self._verbs = verbs
        self._journal = journal
        self._account_first = account_first
        self._looked = False  # the outcome of earlier calls is known
        self._replayed = False  # a failed post is replayed, and the outcome of its earlier attempt is not known yet
        self._answer: RemoteId | None = None

    async def run(self) -> PublishedPost:
        """Take steps until the post is published and confirmed."""
        while True:
            record = self._journal.record
            left_behind = bool(record.handle) or record.remote_id is not None
            match record.state:
                case PostState.PUBLISHED | PostState.CONFIRMED:
                    return await self._confirm()
                case PostState.FAILED:
                    await self._journal.save(PostState.INTENT)
                case PostState.INTENT if left_behind:
                    # A replayed post. Older versions also marked posts in doubt as failed, so look for it first.
                    await self._journal.save(PostState.OPENED)
                    await self._journal.save(PostState.UNKNOWN)
                    self._replayed = True
                case PostState.INTENT:
                    await self._open()
                case PostState.OPENED if not left_behind:
                    await self._open()
                case PostState.COMMITTING | PostState.UNKNOWN | PostState.HANDED_OVER:
                    await self._find()
                case _ if not self._looked:
                    await self._find()
                case _:
                    await self._upload()

    # --- the verbs, each called after a save

    async def _open(self) -> None:
        self._verbs.check()
        if self._account_first and self._journal.record.state is PostState.INTENT:
            await self._journal.save(PostState.OPENED, handle={}, offset=0)
        try:
            handle = await self._verbs.open()
        except PhantomsError:
            if self._journal.record.state is PostState.OPENED:  # free the account for other posts meanwhile
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
        """Send the commit. The ledger already says `committing`."""
        return await self._verbs.commit(self._journal.record)

    async def _find_outcome(self) -> Finding:
        record = self._journal.record
        try:
            answer = await self._verbs.find(record)
        except Disconnected:
            raise
        except Permanent as error:
            if record.state not in OUT_OF_OUR_HANDS:
                raise
            # A refused question says nothing about the post, so it must not end as a failed one.
            message = f"the platform did not say whether the post is out: {error}"
            raise Unknown(message, provider=error.provider, code=error.code, evidence=error.evidence) from error
        self._looked = True
        return answer

    async def _confirm(self) -> PublishedPost:
        record, told = self._journal.record, self._answer
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
        await self._leave_our_hands()
        await self._journal.save(PostState.PUBLISHED, handle=post.handle, remote_id=post.id, url=post.url)
        self._answer = post

    async def _undecided(self, answer: Undecided) -> None:
        state = self._journal.record.state
        lost = answer.handle is not None or (answer.error is not None and state is not PostState.UNKNOWN)
        if isinstance(answer, HandedOver):
            await self._hand_over(answer)
        elif state is not PostState.HANDED_OVER and (lost or state not in MAY_BE_OUT):
            await self._journal.save(PostState.UNKNOWN, handle=answer.handle)
        if answer.error is not None:
            raise answer.error

    async def _hand_over(self, answer: HandedOver) -> None:
        """Save that the creator has the post. The account is free for its next one."""
        if answer.handle is not None or self._journal.record.state is not PostState.HANDED_OVER:
            await self._leave_our_hands()
            await self._journal.save(PostState.HANDED_OVER, handle=answer.handle)

    async def _leave_our_hands(self) -> None:
        if self._journal.record.state not in OUT_OF_OUR_HANDS:  # it took effect although this ledger never sent the commit
            await self._journal.save(PostState.UNKNOWN)

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
            case "commit" if proof.error is not None:  # explicitly refused: everything but the commit is done
                await save(PostState.UPLOADING, handle=proof.handle, offset=proof.offset, proof=proof)
            case "commit":
                await save(PostState.COMMITTING, handle=proof.handle, offset=proof.offset, proof=proof)
        replayed, self._replayed = self._replayed, False
        # The person who replayed the post already knew that its earlier attempt had failed.
        if proof.error is not None and not (replayed and proof.then == "open"):
            raise proof.error
        if proof.then == "commit":
            await self._commit()


# --- paid jobs ------------------------------------------------------------------------------------------------------


async def pay(
    service: PaidService[Job], order: Order[Job, JobResult], journal: PaidJournal, *, waits: WaitLimits, clock: Clock
) -> CompletedJob[JobResult]:
    """Order the job, wait for it and fetch it, continuing from the state in the ledger. Raises the service's errors.

    A job that will never have a file is booked as spent, once, and the next attempt orders another one. So no job can block a video
    forever, and the video's budget includes every job.
    """
    return await _PaidJob(service, order, journal, waits, clock).run()


class _PaidJob(_ExactlyOnce[NotBilled | WrittenOff], Generic[Job, JobResult]):
    """One call of the engine for one paid job."""

    def __init__(
        self, service: PaidService[Job], order: Order[Job, JobResult], journal: PaidJournal, waits: WaitLimits, clock: Clock
    ) -> None:
        self._service = service
        self._order = order
        self._journal = journal
        self._waits = waits
        self._clock = clock
        self._fresh = False  # ordered in this call, a moment ago

    async def run(self) -> CompletedJob[JobResult]:
        """Take steps until the job is done and its file is fetched."""
        while True:
            match self._journal.record.state:
                case PaidState.INTENT:
                    self._check_budget()
                    await self._commit()
                case PaidState.SENDING | PaidState.UNKNOWN:
                    await self._find()
                case PaidState.SUBMITTED | PaidState.DONE:
                    return await self._fetch()

    def _check_budget(self) -> None:
        """Raise Permanent when the budget is used up."""
        # `order.spent` is from the time of the claim. A job of this same claim may have been booked since.
        spent, budget = max(self._order.spent, self._journal.record.spent), self._order.budget
        if spent > budget:
            message = f"{spent:.2f} USD are already spent, and the channel's budget is {budget:.2f} USD per video"
            raise Permanent(message, provider="budget", code="over_budget")

    # --- the order

    async def _send(self) -> RemoteId | NotBilled:
        self._fresh = True
        return await self._service.submit(await self._order.job(), self._about_to_bill)

    async def _about_to_bill(self) -> None:
        await self._journal.save(PaidState.SENDING, attempt_id=self._order.attempt_id)

    async def _answer_lost(self) -> None:
        await self._journal.save(PaidState.UNKNOWN)

    async def _find_outcome(self) -> Found | NotBilled | Undecided:
        return await self._service.find(self._journal.record.attempt_id or "")

    async def _took_effect(self, job: RemoteId) -> None:
        await self._journal.save(PaidState.SUBMITTED, remote_id=job.id)

    async def _undecided(self, answer: Undecided) -> None:
        """Do not order again until the first job must have ended."""
        if self._journal.record.state is not PaidState.UNKNOWN:
            await self._journal.save(PaidState.UNKNOWN)
        noun = self._order.noun
        left = self._waits.lost_after - (self._clock.now() - self._ordered_at())
        if left < timedelta(0):
            await self._write_off(
                written_off(self._service, self._order, "lost", f"the answer to a {noun} was lost and the {noun} never appeared")
            )
        raise answer.error or Unknown(
            f"the answer to a {noun} was lost; it may have been billed, so it is not sent again yet",
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

    async def _fetch(self) -> CompletedJob[JobResult]:
        remote_id = self._journal.record.remote_id
        assert remote_id is not None, "the database refuses a submitted job without an id"
        job = PaidJobPoller(self._service, self._order, self._waits, self._clock, remote_id, self._ordered_at())
        status = await job.wait_for_end(fresh=self._fresh)
        if isinstance(status, WrittenOff):
            await self._write_off(status)
        cost = self._order.price if status.cost is None else status.cost

        async def download(destination: Path) -> None:
            if (gone := await job.download(destination, status, cost)) is not None:
                await self._write_off(gone)

        taken = await self._order.accept(download, cost)
        if isinstance(taken, WrittenOff):  # the next attempt must not get the same file
            await self._write_off(taken)
        await self._journal.save(PaidState.DONE)
        return CompletedJob(taken, remote_id, cost)

    def _ordered_at(self) -> datetime:
        return self._journal.record.attempted_at or self._clock.now()
