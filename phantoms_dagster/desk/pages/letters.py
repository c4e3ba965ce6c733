"""Dead letters grouped by cause: what failed for good, since when and how often, and actions on all letters of a cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

from fastapi import FastAPI, Query
from starlette.responses import Response

from phantoms_dagster.desk.masking import evidence_json
from phantoms_dagster.desk.pages.pipeline import VERBS, outages_of
from phantoms_dagster.desk.plots import Plot, columns
from phantoms_dagster.desk.render import count, page, redirect_to
from phantoms_dagster.desk.visits import CurrentVisit, Form, Visit, field, visible_text
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.store.bulk import MOST_ITEMS
from phantoms_dagster.store.dead_letters.letters import DeadLetters
from phantoms_dagster.store.issues import NEWEST, STATES, TREND_DAYS, VERDICTS, Issue, IssueLetter, Issues

ROWS = 50
EXAMPLES = 3
SAMPLE = 10
TABS = (*STATES, "all")
VERDICT_WORDS: Mapping[str, tuple[str, str]] = {
    "safe": ("safe", "It cannot have taken effect, so it simply starts over."),
    "read_back": (
        "checked with the provider first",
        "It may have taken effect. A replay asks the provider for the outcome before it sends anything.",
    ),
    "person": (
        "needs a person",
        "The provider or one of our rules refused the content. A replay will fail again until somebody changes it.",
    ),
}
DONE: Mapping[str, str] = {
    "acknowledged": "Acknowledged. The next letter with this cause reopens it.",
    "resolved": "Resolved. The next letter with this cause reopens it.",
    "open": "Reopened.",
}
Ids = Annotated[list[int] | None, Query()]


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/dead-letters", include_in_schema=False)(issues)
    app.get("/dead-letters/{cause}", include_in_schema=False)(issue)
    app.post("/dead-letters/{cause}/say", include_in_schema=False)(say)
    app.get("/dead-letters/{cause}/act", include_in_schema=False)(ask)
    app.post("/dead-letters/{cause}/act", include_in_schema=False)(act)


@dataclass(frozen=True)
class Trend:
    """The number of letters on each of the last days: as a plot, as a sparkline for lists, and as numbers for a table."""

    days: tuple[tuple[date, int], ...]
    plot: Plot
    spark: Plot


def issues(
    visit: CurrentVisit, state: str = "open", provider: str = "", q: str = "", number: Annotated[int, Query(alias="page", ge=1)] = 1
) -> Response:
    """Show the issues in this state that contain all words of `q`, most recently seen first."""
    if state not in TABS:
        raise InvalidInput(f"there is no state {state!r}; the states are {', '.join(TABS)}")
    store = Issues(visit.desk.services.engine)
    words = q.casefold().split()
    every = [one for one in store.all() if one.has(words)]
    counts: Counter[str] = Counter(one.state for one in every)
    providers = sorted({one.provider or "none" for one in every})
    found = [one for one in every if (state in (one.state, "all")) and (not provider or provider == (one.provider or "none"))]
    shown = found[(number - 1) * ROWS : number * ROWS]
    trends = _trends(store, shown)
    return page(
        visit,
        "letters.html",
        lines=[(one, trends[one.cause]) for one in shown],
        state=state,
        tabs=[(tab, sum(counts.values()) if tab == "all" else counts[tab]) for tab in TABS],
        provider=provider,
        providers=providers,
        open_letters=sum(one.open for one in every if one.state == "open"),
        number=number,
        more=len(found) > number * ROWS,
        q=q,
        ever=bool(every) or bool(words),
    )


def issue(visit: CurrentVisit, cause: str, which: str = "", before: int = NEWEST) -> Response:
    """Show an issue: its letters, and the provider's answers for some of them."""
    store = Issues(visit.desk.services.engine)
    found = store.get(cause)
    shown = which if which in ("open", "closed") else "open" if found.open else "closed"
    letters = store.letters(cause, which=shown, before=before, limit=ROWS + 1)
    reader = DeadLetters(visit.desk.services.engine)
    return page(
        visit,
        "issue.html",
        run_url=f"{visit.desk.settings.web.url.rstrip('/')}/runs/" if visit.desk.settings.web.url else "",
        issue=found,
        trend=_trends(store, [found])[cause],
        which=shown,
        letters=letters[:ROWS],
        details=[reader.show(one.id) for one in letters[:EXAMPLES]] if before >= NEWEST else [],
        evidence=evidence_json,
        attempt=_attempt,
        older=letters[ROWS - 1].id if len(letters) > ROWS else None,
        newest=before >= NEWEST,
        words=VERDICT_WORDS,
        audit=visit.desk.audit.page(subject=f"issue {cause}", limit=10),
    )


def say(visit: CurrentVisit, cause: str, form: Form) -> Response:
    """Acknowledge, resolve or reopen an issue."""
    state, seen = field(form, "state"), field(form, "seen", most=20)
    if not seen.isdecimal():
        raise InvalidInput("the form does not say which letters you have seen; load the page again")
    store = Issues(visit.desk.services.engine)
    now = store.say(cause, state, visit.actor, seen=int(seen), reason=visible_text(form, "reason", most=1_000))
    if now.came_back and state != "open":
        return redirect_to(
            visit, f"/dead-letters/{cause}", "It stays open: a new letter with this cause came after you loaded the page.", "info"
        )
    return redirect_to(visit, f"/dead-letters/{cause}", DONE[state])


def ask(visit: CurrentVisit, cause: str, action: str = "replay", whole: str = "", letter: Ids = None) -> Response:
    """Show what a replay or discard of these letters would do, before it is done."""
    store = Issues(visit.desk.services.engine)
    found = store.get(cause)
    _known(action)
    letters = _chosen(store, found, whole == "1", letter or [])
    by_verdict = Counter(one.verdict for one in letters)
    return page(
        visit,
        "letters_act.html",
        issue=found,
        action=action,
        verb=VERBS[action],
        whole=whole == "1",
        letters=() if whole == "1" else letters,
        count=len(letters),
        verdicts=[(name, by_verdict[name], *VERDICT_WORDS[name]) for name in VERDICTS if by_verdict[name]],
        preset=[name for name in VERDICTS if name != "person" or set(by_verdict) == {"person"}],
        words=VERDICT_WORDS,
        sample=letters[:SAMPLE],
        most=MOST_ITEMS,
        waits=_waits(visit, found),
    )


def act(visit: CurrentVisit, cause: str, form: Form) -> Response:
    """Start a bulk action and redirect to its page. Sending the same form again leads to the same bulk action."""
    once = field(form, "once", most=40)
    if once and (known := visit.desk.bulk.made_by(once, visit.actor)) is not None:
        return redirect_to(visit, f"/bulk/{known}")
    store = Issues(visit.desk.services.engine)
    found = store.get(cause)
    action = field(form, "action")
    _known(action)
    given = [str(one) for one in form.getlist("letter")]
    if not all(one.isdecimal() and len(one) < 19 for one in given):
        raise InvalidInput("a letter is given by its number")
    letters = _chosen(store, found, field(form, "whole") == "1", [int(one) for one in given])
    arguments: dict[str, Any] = {"issue": cause}
    if action == "replay":
        wanted = {str(one) for one in form.getlist("verdict")}
        letters = [one for one in letters if one.verdict in wanted]
        if not letters:
            raise InvalidInput("no letter is selected: tick at least one kind")
    else:
        arguments["reason"] = visible_text(form, "reason", most=1_000)
    number = visit.desk.bulk.submit(
        action,
        [(one.key, one.id) for one in letters],
        visit.actor,
        arguments=arguments,
        chosen=found.name,
        canary=field(form, "canary") == "1",
        once=once or None,
    )
    return redirect_to(visit, f"/bulk/{number}")


def _known(action: str) -> None:
    if action not in ("replay", "discard"):
        raise InvalidInput(f"there is no action {action!r} for dead letters; the actions are replay and discard")


def _chosen(store: Issues, found: Issue, whole: bool, ids: Sequence[int]) -> list[IssueLetter]:
    """Return the selected open letters, at most MOST_ITEMS. Raises InvalidInput when there are none."""
    if not whole and not ids:
        raise InvalidInput("nothing is selected: tick some letters, or select all of the issue")
    letters = store.chosen(found.cause, None if whole else ids, limit=MOST_ITEMS)
    if not letters:
        raise InvalidInput("none of these letters is still open: they were replayed or discarded")
    return letters


def _waits(visit: Visit, found: Issue) -> str:
    """Return the names of open breakers that a replay would wait for; empty when there are none."""
    held = [one.breaker for one in outages_of(visit).found if found.stage in one.stages and not one.account]
    return ", ".join(held)


def _trends(store: Issues, shown: Sequence[Issue]) -> dict[str, Trend]:
    """Return the trend of each issue by cause."""
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=TREND_DAYS - 1 - n) for n in range(TREND_DAYS)]
    counted = store.trend([one.cause for one in shown], since=days[0])
    return {one.cause: _trend(one, [(day, counted[one.cause].get(day, 0)) for day in days]) for one in shown}


def _trend(one: Issue, days: Sequence[tuple[date, int]]) -> Trend:
    total, (worst, most) = sum(n for _, n in days), max(days, key=lambda day: day[1])
    said = f"{count(total, 'letter', 'letters')} in the last {len(days)} days"
    if total:
        said += f", most on {worst.day} {worst:%B} ({most}), {days[-1][1]} today"
    named = {0: f"{days[0][0].day} {days[0][0]:%b}", len(days) - 1: "today"}
    ticks = [named.get(n, "") for n in range(len(days))]
    bars = [[("badly", n, f"{day.day} {day:%b}: {n}")] for day, n in days]
    summary = f"{one.name}: {said}."
    small = columns(bars, [""] * len(days), summary, width=126, height=46, left=0)
    return Trend(tuple(days), columns(bars, ticks, summary, width=440, height=96), small)


def _attempt(row: Mapping[str, Any]) -> str:
    """Format an attempt as one line: error class, code and message."""
    cause = " ".join(str(row[name]) for name in ("class", "code") if row.get(name))
    return ": ".join(part for part in (cause, str(row.get("message") or "")) if part) or "no outcome"
