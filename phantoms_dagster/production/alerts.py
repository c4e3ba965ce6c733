"""Alerts and the daily summary: what is new, how it is grouped, and its wording. Pure functions: no clock, no table, no network.

One message reports everything since the last one, grouped by cause. There is never one message for each video. `wiring.alerts`
reads the facts and sends the messages.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal

from pydantic import TypeAdapter, ValidationError

from phantoms_dagster.domain.attention import Attention
from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.errors import PhantomsError

# A dead letter's time is the start of its transaction, so it may become visible this much later than newer ones.
LATE = timedelta(minutes=2)
SHOWN_GROUPS = 8
# An account that stopped working is reported like a breaker: one message, however many posts wait. Its name begins with this.
ACCOUNT = "account "
SHOWN_VIDEOS = 3
SHOWN_CHARACTERS = 160


class Undelivered(PhantomsError):
    """A destination did not accept a message. The text never contains the destination's URL."""


@dataclass(frozen=True)
class DeadLetterAlert:
    """The part of a dead letter that an alert shows."""

    id: int
    key: str
    stage: str
    error_class: str
    provider: str | None
    message: str
    created_at: datetime


@dataclass(frozen=True)
class BreakerAlert:
    """A breaker's current state, and each time it opened, oldest first, with the reason."""

    name: str
    state: str
    opened: tuple[tuple[datetime, str], ...]


@dataclass(frozen=True)
class SentAlerts:
    """What one destination has already been told. `letters`: ids of letters from the last `LATE` before `since`.

    `breakers`: the last reported opening of each. `waits`: ids of reported items that wait for a person.
    """

    since: datetime
    letters: frozenset[int] = frozenset()
    breakers: Mapping[str, datetime] = field(default_factory=dict)
    sent_at: datetime | None = None
    waits: frozenset[str] = frozenset()


@dataclass(frozen=True)
class UnsentAlerts:
    """What a destination has not been told yet. Falsy when there is nothing."""

    letters: tuple[DeadLetterAlert, ...] = ()
    breakers: tuple[BreakerAlert, ...] = ()
    waits: tuple[Attention, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to report."""
        return bool(self.letters or self.breakers or self.waits)


@dataclass(frozen=True)
class AlertReading:
    """The current facts. `at`: the database's time just before they were read. `breakers` is None when Redis did not answer."""

    at: datetime
    letters: tuple[DeadLetterAlert, ...]
    breakers: tuple[BreakerAlert, ...] | None = None
    waits: tuple[Attention, ...] = ()


@dataclass(frozen=True)
class AlertDelivery:
    """The result of a delivery. `told`: the new state by destination. `failed`: the reason by destination.

    `until`: the earliest time of a message that was held back.
    """

    told: Mapping[str, SentAlerts]
    sent: tuple[Message, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    until: datetime | None = None


@dataclass(frozen=True)
class Group:
    """Dead letters with the same stage, class and provider. `keys`: their videos, the newest first."""

    stage: str
    error_class: str
    provider: str | None
    keys: tuple[str, ...]
    message: str

    @property
    def filters(self) -> str:
        """The options of `phantoms dead-letters` that select these letters."""
        parts = ["--stage", self.stage, "--class", self.error_class, "--provider", self.provider or "none"]
        return shlex.join(parts)


@dataclass(frozen=True)
class Message:
    """A plain-text message. `urgent`: a person should look at it; destinations show that if they can."""

    title: str
    body: str
    urgent: bool = False


@dataclass(frozen=True)
class DayFacts:
    """The figures of one local day. `cost` is in US dollars. `open_letters` and `unknown_posts` are current."""

    day: date
    added: int
    posts: Mapping[str, int]
    failures: Mapping[str, int]
    cost: Decimal
    open_letters: int
    unknown_posts: int
    waits: tuple[Attention, ...] = ()


_CURSOR = TypeAdapter(dict[str, SentAlerts])


def load_cursor(cursor: str | None) -> dict[str, SentAlerts]:
    """What each destination was told, from a sensor cursor. Empty for a cursor that another version wrote."""
    try:
        return _CURSOR.validate_json(cursor) if cursor else {}
    except ValidationError:
        return {}


def dump_cursor(told: Mapping[str, SentAlerts]) -> str:
    """The sensor cursor that stores what each destination was told."""
    return _CURSOR.dump_json(dict(told)).decode()


def read_letters_since(told: Mapping[str, SentAlerts], destinations: Iterable[str]) -> datetime | None:
    """The time from which letters must be read so that no destination misses one; None: read all open letters."""
    since = [told[name].since if name in told else None for name in destinations]
    known = [moment for moment in since if moment is not None]
    return min(known) - LATE if known and len(known) == len(since) else None


def deliver(
    told: Mapping[str, SentAlerts],
    reading: AlertReading,
    destinations: Mapping[str, Callable[[Message], None]],
    *,
    now: datetime,
    pause: timedelta,
    web_url: str | None = None,
    desk_url: str | None = None,
) -> AlertDelivery:
    """Send each destination one message with what is new to it, unless its last message was less than `pause` ago.

    A destination is a function that may raise Undelivered. Then only that destination gets the same message again next time.
    """
    after: dict[str, SentAlerts] = {}
    sent: list[Message] = []
    failed: dict[str, str] = {}
    waits: list[datetime] = []
    breakers = reading.breakers or ()
    for name, send in destinations.items():
        before = told.get(name)
        found = find_unsent(reading.letters, breakers, before, reading.waits)
        later = next_allowed(before, now, pause)
        if found and later is not None:
            waits.append(later)
        elif found:
            message = alert(found, web_url=web_url, desk_url=desk_url)
            try:
                send(message)
            except Undelivered as error:
                failed[name] = str(error)
            else:
                sent.append(message)
                after[name] = mark_sent(before, reading.letters, breakers, reading.waits, read_at=reading.at, sent_at=now)
        elif before is None:
            after[name] = mark_sent(None, reading.letters, breakers, reading.waits, read_at=reading.at, sent_at=None)
        if name not in after and before is not None:
            # An item that stops waiting is reported again if it comes back.
            after[name] = replace(before, waits=before.waits & {item.id for item in reading.waits})
    return AlertDelivery(after, tuple(sent), failed, min(waits, default=None))


def find_unsent(
    letters: Iterable[DeadLetterAlert], breakers: Iterable[BreakerAlert], told: SentAlerts | None, waits: Iterable[Attention] = ()
) -> UnsentAlerts:
    """What is new to a destination.

    A destination that was told nothing yet gets every letter and the breakers that are open now.
    """
    known = told.waits if told is not None else frozenset()
    waiting = tuple(item for item in waits if item.alert and item.id not in known)
    if told is None:
        # Only breakers that are still open: old openings are not worth reporting.
        still = (BreakerAlert(b.name, b.state, b.opened[-1:]) for b in breakers if b.state != "closed" and b.opened)
        return UnsentAlerts(tuple(letters), tuple(still), waiting)
    fresh = tuple(n for n in letters if n.id not in told.letters and n.created_at > told.since - LATE)
    opened = []
    for breaker in breakers:
        after = told.breakers.get(breaker.name, told.since)
        if later := tuple(opening for opening in breaker.opened if opening[0] > after):
            opened.append(BreakerAlert(breaker.name, breaker.state, later))
    return UnsentAlerts(fresh, tuple(opened), waiting)


def mark_sent(
    told: SentAlerts | None,
    letters: Iterable[DeadLetterAlert],
    breakers: Iterable[BreakerAlert],
    waits: Iterable[Attention] = (),
    *,
    read_at: datetime,
    sent_at: datetime | None,
) -> SentAlerts:
    """The state of a destination after it was told all of this. `read_at`: the database's time just before the facts were read."""
    known = dict(told.breakers) if told is not None else {}
    known |= {b.name: b.opened[-1][0] for b in breakers if b.opened}
    recent = frozenset(n.id for n in letters if n.created_at > read_at - LATE)
    told_of = frozenset(item.id for item in waits if item.alert)
    return SentAlerts(read_at, recent, known, sent_at or (told.sent_at if told is not None else None), told_of)


def next_allowed(told: SentAlerts | None, now: datetime, pause: timedelta) -> datetime | None:
    """When the next message may go out; None when it may go out now."""
    if told is None or told.sent_at is None or now >= told.sent_at + pause:
        return None
    return told.sent_at + pause


def grouped(letters: Iterable[DeadLetterAlert]) -> list[Group]:
    """Group the letters by stage, class and provider, the largest group first."""
    found: defaultdict[tuple[str, str, str | None], list[DeadLetterAlert]] = defaultdict(list)
    for letter in letters:
        found[letter.stage, letter.error_class, letter.provider].append(letter)
    groups = []
    for (stage, error_class, provider), members in found.items():
        newest = sorted(members, key=lambda n: n.id, reverse=True)
        groups.append(Group(stage, error_class, provider, tuple(n.key for n in newest), newest[0].message))
    return sorted(groups, key=lambda g: (-len(g.keys), g.stage, g.error_class, g.provider or ""))


def alert(found: UnsentAlerts, *, web_url: str | None = None, desk_url: str | None = None) -> Message:
    """One message about everything that is new."""
    groups = grouped(found.letters)
    parts = [counted(len(found.letters), "new dead letter")] if groups else []
    accounts = sum(breaker.name.startswith(ACCOUNT) for breaker in found.breakers)
    if accounts:
        parts.append(f"{counted(accounts, 'account')} stopped working")
    if len(found.breakers) > accounts:
        parts.append(f"{counted(len(found.breakers) - accounts, 'breaker')} opened")
    if found.waits:
        parts.append(f"{counted(len(found.waits), 'thing')} waiting for a person")
    lines: list[str] = []
    for group in groups[:SHOWN_GROUPS]:
        where = f" at {group.provider}" if group.provider else ""
        lines += [
            f"{len(group.keys)} x {group.stage}: {group.error_class}{where}",
            f"  {one_line(group.message)}",
            f"  {_some(group.keys)}",
        ]
    if hidden := groups[SHOWN_GROUPS:]:
        lines.append(f"... and {sum(len(g.keys) for g in hidden)} in {counted(len(hidden), 'more group')}")
    lines += [_breaker(breaker) for breaker in found.breakers]
    lines += [one_line(item.what) for item in found.waits]
    lines += ["", "Next:", *_commands(groups, found.breakers), *dict.fromkeys(one_line(item.next_step) for item in found.waits)]
    if web_url or desk_url:
        lines.append("")
    if desk_url:
        lines.append(f"Desk: {_page(desk_url, 'dead-letters' if groups else 'providers' if found.breakers else 'review')}")
    if web_url:
        lines.append(f"Dagster: {web_url}")
    return Message(f"Phantoms: {', '.join(parts)}", "\n".join(lines).strip(), urgent=True)


def summary(facts: DayFacts, *, desk_url: str | None = None) -> Message:
    """The daily message: the day's videos, posts, failures and cost, what is open now, and where to look."""
    posted = sum(facts.posts.values())
    failed = sum(facts.failures.values())
    title = f"Phantoms {facts.day}: {counted(posted, 'post')}, {counted(failed, 'failure')}, {facts.cost:.2f} USD"
    lines = [
        f"Videos added: {facts.added}",
        f"Posts published: {posted}{_split(facts.posts)}",
        f"Stages that failed: {failed}{_split(facts.failures)}",
        f"Spent: {facts.cost:.2f} USD",
        f"Dead letters open now: {facts.open_letters}",
    ]
    if facts.unknown_posts:
        lines.append(f"Posts whose outcome is unknown: {facts.unknown_posts} (they are read back, never sent again)")
    if facts.waits:
        lines += ["", "Waiting for a person:", *(f"- {one_line(item.what)} ({one_line(item.next_step)})" for item in facts.waits)]
    if facts.open_letters:
        lines += ["", "Next:", "phantoms dead-letters list", "phantoms dead-letters replay --all"]
    if desk_url:
        pages = {"Review": "review", "Calendar": "calendar", "Dead letters": "dead-letters"}
        lines += ["", *(f"{name}: {_page(desk_url, path)}" for name, path in pages.items())]
    return Message(title, "\n".join(lines))


def yesterday(now: datetime) -> date:
    """The day before `now`, in the time zone of `now`."""
    return now.date() - timedelta(days=1)


def _commands(groups: Sequence[Group], breakers: Sequence[BreakerAlert]) -> list[str]:
    commands = []
    if len(groups) == 1:
        commands += [f"phantoms dead-letters list {groups[0].filters}", f"phantoms dead-letters replay {groups[0].filters}"]
    elif groups:
        commands.append("phantoms dead-letters list")
        commands += [f"phantoms dead-letters replay {group.filters}" for group in groups[:SHOWN_GROUPS]]
    if any(breaker.name.startswith(ACCOUNT) for breaker in breakers):
        commands.append("phantoms accounts")
    if any(not breaker.name.startswith(ACCOUNT) for breaker in breakers):
        commands.append("phantoms breakers")
    return commands


def _breaker(breaker: BreakerAlert) -> str:
    at, why = breaker.opened[-1]
    if breaker.name.startswith(ACCOUNT):
        return f"{breaker.name} waits since {at:%Y-%m-%d %H:%M} UTC: {one_line(why)}"
    times = f" {len(breaker.opened)} times, last" if len(breaker.opened) > 1 else ""
    return f"breaker {breaker.name} opened{times} at {at:%Y-%m-%d %H:%M} UTC: {one_line(why)} (now {breaker.state})"


def _some(keys: Sequence[str]) -> str:
    unique = list(dict.fromkeys(keys))
    more = f" and {len(unique) - SHOWN_VIDEOS} more" if len(unique) > SHOWN_VIDEOS else ""
    return ", ".join(unique[:SHOWN_VIDEOS]) + more


def _page(desk_url: str, path: str) -> str:
    return f"{desk_url.rstrip('/')}/{path}"


def _split(counts: Mapping[str, int]) -> str:
    parts = ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return f" ({parts})" if parts else ""


def one_line(text: str) -> str:
    """The text on one line, without control characters, at most SHOWN_CHARACTERS long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1] + "\u2026"
