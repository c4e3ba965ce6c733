"""Alerts and the daily summary: what is news, how it is grouped, and how it is worded. Pure: no clock, no table, no network.

One message tells of everything since the last one, by cause; never one message for each video. Where letters and breakers
are read, and how a message is sent, belong in `wiring.alerts`.
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

# A letter's time is when its transaction began: it may turn up so much later than younger ones.
LATE = timedelta(minutes=2)
SHOWN_GROUPS = 8
# News of an account that cannot post goes the way of a breaker's: one message, whatever number of posts waits behind it.
ACCOUNT = "account "
SHOWN_VIDEOS = 3
SHOWN_CHARACTERS = 160


class Undelivered(PhantomsError):
    """A destination did not take a message. The text never holds the destination's URL."""


@dataclass(frozen=True)
class LetterNews:
    """A dead letter, as far as an alert tells of it."""

    id: int
    key: str
    stage: str
    error_class: str
    provider: str | None
    message: str
    created_at: datetime


@dataclass(frozen=True)
class BreakerNews:
    """A breaker now, and each time it went from closed to open (oldest first) with the reason."""

    name: str
    state: str
    opened: tuple[tuple[datetime, str], ...]


@dataclass(frozen=True)
class SentAlerts:
    """What one destination has been told already. `letters`: ids of the last `LATE` before `since`; `breakers`: last opening.

    `waits`: ids of what waits for a person and was told.
    """

    since: datetime
    letters: frozenset[int] = frozenset()
    breakers: Mapping[str, datetime] = field(default_factory=dict)
    sent_at: datetime | None = None
    waits: frozenset[str] = frozenset()


@dataclass(frozen=True)
class UnsentAlerts:
    """What a destination has not been told yet."""

    letters: tuple[LetterNews, ...] = ()
    breakers: tuple[BreakerNews, ...] = ()
    waits: tuple[Attention, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.letters or self.breakers or self.waits)


@dataclass(frozen=True)
class AlertReading:
    """What was found. `at`: the database's time just before it was asked. `breakers` None: Redis did not answer."""

    at: datetime
    letters: tuple[LetterNews, ...]
    breakers: tuple[BreakerNews, ...] | None = None
    waits: tuple[Attention, ...] = ()


@dataclass(frozen=True)
class AlertDelivery:
    """What came of telling. `told`: by destination, as it is now; `failed`: why, by destination; `until`: the next may go then."""

    told: Mapping[str, SentAlerts]
    sent: tuple[Message, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    until: datetime | None = None


@dataclass(frozen=True)
class Group:
    """Letters of one stage, class and provider. `keys`: their videos, the newest first."""

    stage: str
    error_class: str
    provider: str | None
    keys: tuple[str, ...]
    message: str

    @property
    def filters(self) -> str:
        """The options of `phantoms dead-letters` that mean these letters."""
        parts = ["--stage", self.stage, "--class", self.error_class, "--provider", self.provider or "none"]
        return shlex.join(parts)


@dataclass(frozen=True)
class Message:
    """What is sent. Plain text. `urgent`: somebody should look, as far as a destination can show that."""

    title: str
    body: str
    urgent: bool = False


@dataclass(frozen=True)
class DayFacts:
    """What one local day brought. `cost` is in US dollars; `open_letters` and `unknown_posts` are as of now."""

    day: date
    added: int
    posts: Mapping[str, int]
    failures: Mapping[str, int]
    cost: Decimal
    open_letters: int
    unknown_posts: int
    waits: tuple[Attention, ...] = ()


_TOLD = TypeAdapter(dict[str, SentAlerts])


def remembered(cursor: str | None) -> dict[str, SentAlerts]:
    """What each destination was told, from a cursor; nothing from one that another version wrote."""
    try:
        return _TOLD.validate_json(cursor) if cursor else {}
    except ValidationError:
        return {}


def cursor_of(told: Mapping[str, SentAlerts]) -> str:
    """The cursor to remember it by."""
    return _TOLD.dump_json(dict(told)).decode()


def looking_back(told: Mapping[str, SentAlerts], destinations: Iterable[str]) -> datetime | None:
    """From when on letters must be read so that none is missed by any destination; None: all that are open."""
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
    """Tell each destination what it does not know yet, at most one message each and none within `pause` of its last.

    A destination is a function that raises Undelivered; then it is told the same again next time, and the others are not.
    """
    after: dict[str, SentAlerts] = {}
    sent: list[Message] = []
    failed: dict[str, str] = {}
    waits: list[datetime] = []
    breakers = reading.breakers or ()
    for name, send in destinations.items():
        before = told.get(name)
        found = news(reading.letters, breakers, before, reading.waits)
        later = too_soon(before, now, pause)
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
                after[name] = after_telling(before, reading.letters, breakers, reading.waits, read_at=reading.at, sent_at=now)
        elif before is None:
            after[name] = after_telling(None, reading.letters, breakers, reading.waits, read_at=reading.at, sent_at=None)
        if name not in after and before is not None:
            # What waits no longer is news again when it comes back.
            after[name] = replace(before, waits=before.waits & {item.id for item in reading.waits})
    return AlertDelivery(after, tuple(sent), failed, min(waits, default=None))


def news(
    letters: Iterable[LetterNews], breakers: Iterable[BreakerNews], told: SentAlerts | None, waits: Iterable[Attention] = ()
) -> UnsentAlerts:
    """What is new to a destination. To one that was told nothing before: every letter, and the breakers that are open now."""
    known = told.waits if told is not None else frozenset()
    waiting = tuple(item for item in waits if item.alert and item.id not in known)
    if told is None:
        # Of the past only what is still so: openings that are long over are no news.
        still = (BreakerNews(b.name, b.state, b.opened[-1:]) for b in breakers if b.state != "closed" and b.opened)
        return UnsentAlerts(tuple(letters), tuple(still), waiting)
    fresh = tuple(n for n in letters if n.id not in told.letters and n.created_at > told.since - LATE)
    opened = []
    for breaker in breakers:
        after = told.breakers.get(breaker.name, told.since)
        if later := tuple(opening for opening in breaker.opened if opening[0] > after):
            opened.append(BreakerNews(breaker.name, breaker.state, later))
    return UnsentAlerts(fresh, tuple(opened), waiting)


def after_telling(
    told: SentAlerts | None,
    letters: Iterable[LetterNews],
    breakers: Iterable[BreakerNews],
    waits: Iterable[Attention] = (),
    *,
    read_at: datetime,
    sent_at: datetime | None,
) -> SentAlerts:
    """What a destination knows once it was told of all these. `read_at`: the database's time just before they were read."""
    known = dict(told.breakers) if told is not None else {}
    known |= {b.name: b.opened[-1][0] for b in breakers if b.opened}
    recent = frozenset(n.id for n in letters if n.created_at > read_at - LATE)
    told_of = frozenset(item.id for item in waits if item.alert)
    return SentAlerts(read_at, recent, known, sent_at or (told.sent_at if told is not None else None), told_of)


def too_soon(told: SentAlerts | None, now: datetime, pause: timedelta) -> datetime | None:
    """When the next message may go out, should that be later than `now`."""
    if told is None or told.sent_at is None or now >= told.sent_at + pause:
        return None
    return told.sent_at + pause


def grouped(letters: Iterable[LetterNews]) -> list[Group]:
    """The letters by stage, class and provider; the largest group first."""
    found: defaultdict[tuple[str, str, str | None], list[LetterNews]] = defaultdict(list)
    for letter in letters:
        found[letter.stage, letter.error_class, letter.provider].append(letter)
    groups = []
    for (stage, error_class, provider), members in found.items():
        newest = sorted(members, key=lambda n: n.id, reverse=True)
        groups.append(Group(stage, error_class, provider, tuple(n.key for n in newest), newest[0].message))
    return sorted(groups, key=lambda g: (-len(g.keys), g.stage, g.error_class, g.provider or ""))


def alert(found: UnsentAlerts, *, web_url: str | None = None, desk_url: str | None = None) -> Message:
    """The one message about all that is new."""
    groups = grouped(found.letters)
    parts = [counted(len(found.letters), "new dead letter")] if groups else []
    accounts = sum(breaker.name.startswith(ACCOUNT) for breaker in found.breakers)
    if accounts:
        parts.append(f"{counted(accounts, 'account')} cannot post")
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
    """The daily message: yesterday's videos, posts, failures and cost, what is open now, and where to look."""
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
    """The day before that of `now`, in the zone of `now`."""
    return now.date() - timedelta(days=1)


def _commands(groups: Sequence[Group], breakers: Sequence[BreakerNews]) -> list[str]:
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


def _breaker(breaker: BreakerNews) -> str:
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
    """The text in one line of bounded length, without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1] + "\u2026"
