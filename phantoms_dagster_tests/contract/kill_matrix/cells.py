"""One cell of the matrix: a fault strikes at a verb, the post is carried on as the runner does, and both ledgers are compared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

from phantoms_dagster.domain.errors import NotYet, Permanent, Rejected, Transient, Unknown
from phantoms_dagster.domain.paid_job import MAY_BE_PAID, AboutToBill, PaidState, WrittenOff
from phantoms_dagster.domain.ports import Publisher, PublishJob, Renderer, RenderJob
from phantoms_dagster.domain.publication import MAY_BE_OUT, PostRecord, PublishedPost, PublishVerbs
from phantoms_dagster.domain.reconciliation import NEEDS_PERSON_AFTER, NEEDS_PERSON_READS
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.sandbox.core import Fault
from phantoms_dagster_tests.contract.kill_matrix.routes import AFTER_SAVE, BEFORE_SAVE, EVENT_LATE, Case, MatrixRoute
from phantoms_dagster_tests.contract.paid_world import Paid
from phantoms_dagster_tests.contract.publishing_kit import Killed
from phantoms_dagster_tests.contract.test_provider_events import Receiver, receiving

HOUR = 3_600.0
DAY = 90_000.0
TRIES = 100

BEFORE_SEND = "killed before the request leaves"
AFTER_SEND = "killed when the request is accepted, before its answer comes"
AFTER_ANSWER = "killed after the answer"
KILLS = (BEFORE_SEND, AFTER_SEND, AFTER_ANSWER, BEFORE_SAVE, AFTER_SAVE)
LOST_REQUEST = "connection breaks before acceptance"
LOST_ANSWER = "connection breaks after acceptance"
BROKEN_ANSWER = "answer is not readable after acceptance"
SERVER_ERROR = "the service answers 500"
ANSWERS = {LOST_REQUEST: "drop_before", LOST_ANSWER: "drop_after", BROKEN_ANSWER: "malformed", SERVER_ERROR: "status"}
EVENT_TWICE = "killed, and each event comes twice"
EVENT_REORDERED = "killed, and the events come in reverse order"
EVENTS = (EVENT_TWICE, EVENT_LATE, EVENT_REORDERED)
SESSION = "killed, and resumed after a day: the session has expired"
TOKEN = "the token expires before the verb"
AHEAD = "the platform's clock is an hour ahead from the verb on"
BEHIND = "the platform's clock is an hour behind from the verb on"
CLOCKS = {AHEAD: -HOUR, BEHIND: HOUR}
FAULTS = (*KILLS, *ANSWERS, *EVENTS, SESSION, TOKEN, *CLOCKS)


@dataclass(frozen=True)
class Outcome:
    """How a cell ended. `does_not_apply`, `wrong`: why. Both are empty when all is well. `booked`: orders that were written off."""

    route: str
    verb: str
    fault: str
    does_not_apply: str = ""
    wrong: str = ""
    booked: int = 0


def why_not(route: MatrixRoute, verb: str, fault: str) -> str:
    """Why the cell cannot exist; empty when it can."""
    if fault in (AFTER_SEND, AFTER_ANSWER, *ANSWERS) and verb in route.silent:
        return route.silent[verb]
    if fault in route.unreachable.get(verb, ()):
        return route.unreachable[verb][fault]
    if fault in EVENTS:
        return route.events
    if fault == SESSION:
        return route.session
    if fault in CLOCKS:
        return route.clocks
    if fault == TOKEN:
        return route.tokens or route.silent.get(verb, "")
    return ""


# --- the strike -----------------------------------------------------------------------------------------------------


class Strike:
    """A fault that strikes once, at the first chance within its verb. `hit`: it has struck."""

    def __init__(self, route: MatrixRoute, case: Any, journal: Any, verb: str, fault: str) -> None:
        self.route = route
        self.case = case
        self.journal = journal
        self.verb = verb
        self.fault = fault
        self.hit = False
        self._now = ""  # the verb that the engine called last
        self._answering = 0  # the request after whose answer the process dies
        journal.kill = self._at_save
        case.transport.kill = self._at_request

    def entered(self, verb: str) -> None:
        """The engine calls a verb."""
        self._now = verb
        if self.hit or verb != self.verb:
            return
        if self.fault in CLOCKS:
            self.hit = True
            self.case.clock.offset = CLOCKS[self.fault]
        if self.fault == TOKEN:
            self.hit = True
            self._expire_token()
        kills_inside = (BEFORE_SEND, SESSION, *EVENTS)
        if self.fault in kills_inside and verb in self.route.silent:
            self._die()

    def _at_request(self, moment: str, number: int) -> None:
        if moment == "after answer" and self._answering == number:
            self._die()
        if moment != "before send" or self.hit or self._now != self.verb or self._answering:
            return
        if self.verb == self.route.deciding and not self.route.decisive(self.case.transport.requests[-1]):
            return
        if self.fault == BEFORE_SEND:
            self._die()
        if self.fault in (AFTER_ANSWER, SESSION, *EVENTS):
            self._answering = number
        if self.fault == AFTER_SEND:
            self.hit = True
            self.case.transport.served = self._accepted
        if self.fault in ANSWERS:
            self.hit = True
            self.case.sandbox.faults.append(Fault(route="*", kind=ANSWERS[self.fault], times=1))

    def _at_save(self, moment: str, number: int) -> None:
        due = {BEFORE_SAVE: "before save", AFTER_SAVE: "after save"}.get(self.fault)
        if moment == due and not self.hit and self._now == self.verb and self._after_the_request(moment):
            self._die()

    def _after_the_request(self, moment: str) -> bool:
        """An order has a save before its request. The one that is meant comes after it."""
        sending = self.journal.record.state is PaidState.SENDING
        return self.verb != "submit" or sending == (moment == "before save")

    def _die(self) -> None:
        self.hit = True
        raise Killed(self.fault)

    async def _accepted(self) -> None:
        """Wait until the sandbox has dealt with one more request."""
        sandbox = self.case.sandbox
        before = sum(sandbox.calls.values())
        while sum(sandbox.calls.values()) == before or any(sandbox.in_flight.values()):  # noqa: ASYNC110 - another loop's counters
            await asyncio.sleep(0.001)

    def _expire_token(self) -> None:
        assert self.case.tokens is not None
        self.case.tokens.renews = True
        self.route.expire(self.case, self.case.tokens)


class Announced:
    """A publisher that tells the strike which verb the engine calls."""

    def __init__(self, publisher: Publisher, strike: Strike) -> None:
        self._publisher = publisher
        self._strike = strike
        self.provider = publisher.provider
        self.platform = publisher.platform
        self.sandbox = publisher.sandbox
        self.account_first = publisher.account_first

    @asynccontextmanager
    async def verbs(self, job: PublishJob) -> AsyncIterator[PublishVerbs]:
        """See the port."""
        async with self._publisher.verbs(job) as verbs:
            yield AnnouncedVerbs(verbs, self._strike)


class AnnouncedVerbs:
    """The verbs of one post, each announced."""

    def __init__(self, verbs: PublishVerbs, strike: Strike) -> None:
        self._verbs = verbs
        self._strike = strike

    def check(self) -> None:
        self._verbs.check()

    async def open(self) -> Any:
        self._strike.entered("open")
        return await self._verbs.open()

    async def upload(self, record: PostRecord) -> Any:
        self._strike.entered("upload")
        return await self._verbs.upload(record)

    async def commit(self, record: PostRecord) -> Any:
        self._strike.entered("commit")
        return await self._verbs.commit(record)

    async def find(self, record: PostRecord) -> Any:
        self._strike.entered("find")
        return await self._verbs.find(record)

    async def confirm(self, record: PostRecord) -> PublishedPost:
        self._strike.entered("confirm")
        return await self._verbs.confirm(record)


class AnnouncedService:
    """The verbs of a renderer, each announced."""

    def __init__(self, service: Renderer, carrier: Carrier) -> None:
        self._service = service
        self._carrier = carrier
        self.provider = service.provider
        self.at_once = service.at_once

    async def submit(self, job: RenderJob, about_to_bill: AboutToBill) -> Any:
        self._carrier.strike.entered("submit")
        return await self._service.submit(job, about_to_bill)

    async def find(self, attempt_id: str) -> Any:
        self._carrier.strike.entered("find")
        return await self._service.find(attempt_id)

    async def status(self, remote_id: str) -> Any:
        self._carrier.strike.entered("status")
        return await self._service.status(remote_id)

    async def fetch(self, remote_id: str, destination: Path, *, url: str | None = None) -> None:
        self._carrier.strike.entered("fetch")
        await self._service.fetch(remote_id, destination, url=url)


# --- the cell -------------------------------------------------------------------------------------------------------


class _Ended(Exception):
    """A person would have to do something. The message says what."""


class Carrier:
    """Carries the post or the render on as the runner does: again after each death, lost answer and deferral."""

    def __init__(self, route: MatrixRoute, case: Case, journal: Any, receiver: Receiver) -> None:
        self.route = route
        self.case = case
        self.journal = journal
        self.receiver = receiver
        self.strike = Strike(route, case, journal, "", "")
        if isinstance(case, Paid):
            case.renderer = cast(Renderer, AnnouncedService(case.renderer, self))
        else:
            made = case.publisher
            case.publisher = lambda: Announced(made(), self.strike)
        self.fault = ""  # of the cell
        self._reads = 0
        self._doubt_since: datetime | None = None

    def arm(self, verb: str, fault: str) -> None:
        """Set the fault that strikes next."""
        self.strike = Strike(self.route, self.case, self.journal, verb, fault)

    async def once(self) -> bool:
        """One call of the engine. Whether the post is done."""
        hit = self.strike.hit
        try:
            await self.case.carry(self.journal)
        except Killed:
            if not await self._events():
                self.case.sandbox.advance(1)
        except (Transient, Unknown, NotYet) as later:
            self._doubt()
            if not await self._events():  # an event makes the post due at once
                self.case.sandbox.advance((later.retry_after or 0.0) + 1.0)
        except (Permanent, Rejected) as error:
            raise _Ended(f"{type(error).__name__}: {error}") from error
        else:
            return True
        if self.strike.fault == SESSION and self.strike.hit and not hit:
            self.case.sandbox.advance(DAY)
            self.case.forget()
        return False

    async def to_the_end(self) -> None:
        """Carry on until the post is done. Then the events that are left come, and the engine is asked once more."""
        for _ in range(TRIES):
            if await self.once():
                break
        else:
            raise _Ended(f"not done after {TRIES} calls of the engine: {self.journal.states[-5:]}")
        if self.strike.fault == EVENT_LATE:
            self.case.sandbox.advance(DAY)
        if self.strike.fault in EVENTS:
            await self._deliver()
        await self.case.carry(self.journal)

    async def _events(self) -> bool:
        """Let the events come, if they come in time. Whether one was new."""
        # Callbacks of a renderer come with every fault, because they are how a lost order is found.
        calls_back = isinstance(self.case, Paid) and self.route.send_events is not None and self.fault != EVENT_LATE
        if calls_back or (self.strike.fault in (EVENT_TWICE, EVENT_REORDERED) and self.strike.hit):
            return await self._deliver()
        return False

    async def _deliver(self) -> bool:
        assert self.route.send_events is not None
        known = len(self.receiver.events)
        self.receiver.now = self.case.sandbox.now()
        order = "reversed" if self.fault == EVENT_REORDERED else "sent"
        await self.route.send_events(self.case, self.receiver, order, 2 if self.fault == EVENT_TWICE else 1)
        return len(self.receiver.events) > known

    def _doubt(self) -> None:
        """Raise _Ended when reads have not settled the post in the time after which it is shown to a person."""
        now = self.case.clock.now()
        if self.journal.record.state is not PostState.UNKNOWN:
            self._reads, self._doubt_since = 0, None
            return
        self._reads += 1
        self._doubt_since = self._doubt_since or now
        if self._reads > NEEDS_PERSON_READS or now - self._doubt_since > NEEDS_PERSON_AFTER + timedelta(minutes=5):
            raise _Ended(f"still unknown after {self._reads} reads and {now - self._doubt_since}")


@contextmanager
def _judged(outcome: Outcome) -> Iterator[list[Outcome]]:
    """The outcome of the block: what is wrong, if anything."""
    found = [outcome]
    try:
        yield found
    except _Ended as error:
        found[0] = replace(outcome, wrong=f"needs a person: {error}")
    except AssertionError as error:
        found[0] = replace(outcome, wrong=str(error).strip().partition("\n")[0] or "more or fewer than one post")


async def run_cell(name: str, route: MatrixRoute, verb: str, fault: str, folder: Path) -> Outcome:
    """Run one cell."""
    outcome = Outcome(name, verb, fault, does_not_apply=why_not(route, verb, fault))
    if outcome.does_not_apply:
        return outcome
    folder.mkdir(parents=True, exist_ok=True)
    with _judged(outcome) as found:
        async with receiving() as receiver, route.opened(folder, receiver) as case:
            if route.send_events is not None:
                gateway = f"{receiver.url}/uploadpost/{receiver.secrets.secret}"
                urls = {"tiktok.webhook_url": f"{receiver.url}/tiktok", "uploadpost.webhook_url": gateway}
                case.sandbox.configure({**urls, "webhooks.held": True})
            if isinstance(case, Paid) and fault == EVENT_LATE:
                case.findable = False  # nothing tells of a lost order in time, so it is booked as spent
            journal = case.journal()
            carrier = Carrier(route, case, journal, receiver)
            carrier.fault = fault
            await _approach(carrier, verb)
            carrier.arm(verb, fault)
            await carrier.to_the_end()
            assert carrier.strike.hit, "the fault never struck"
            case.assert_once(journal)
            found[0] = replace(outcome, booked=sum(isinstance(proof, WrittenOff) for proof in journal.proofs))
            assert not receiver.refused, f"an event was refused: {receiver.refused}"
            copies = 2 if fault == EVENT_TWICE else 1
            assert fault not in EVENTS or receiver.deliveries >= copies * len(receiver.events) > 0, "no event came"
    return found[0]


async def _approach(carrier: Carrier, verb: str) -> None:
    """Bring the post to where the engine calls that verb: `find` after a lost answer, `confirm` in a process of its own."""
    if verb == "find":
        carrier.arm(carrier.route.deciding, LOST_ANSWER if carrier.route.requests else BEFORE_SAVE)
        await carrier.once()
        assert carrier.strike.hit
        assert carrier.journal.record.state in (*MAY_BE_OUT, *MAY_BE_PAID)
    if verb == "confirm":

        def die_when_published(moment: str, _: int) -> None:
            if moment == "after save" and carrier.journal.record.state is PostState.PUBLISHED:
                raise Killed(moment)

        carrier.journal.kill = die_when_published
        for _ in range(TRIES):
            assert not await carrier.once()
            if carrier.journal.record.state is PostState.PUBLISHED:
                return
        raise AssertionError("never published")


async def run_route(name: str, route: MatrixRoute, folder: Path) -> list[Outcome]:
    """All cells of a route, one after the other."""
    places = [(verb, fault) for fault in FAULTS for verb in route.verbs]
    return [await run_cell(name, route, verb, fault, folder / str(number)) for number, (verb, fault) in enumerate(places)]
