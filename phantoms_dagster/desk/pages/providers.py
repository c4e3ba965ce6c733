"""Providers: breakers and their history, waiting videos, remaining rates and quotas, and accounts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from fastapi import FastAPI
from starlette.responses import Response

from phantoms_dagster.desk.plots import Plot, columns
from phantoms_dagster.desk.render import page, redirect_to
from phantoms_dagster.desk.visits import CurrentVisit, Form, Visit, field, visible_text
from phantoms_dagster.domain.accounts import Account
from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.resilience.breakers.breaker import BreakerState, Transition
from phantoms_dagster.resilience.pools import SANDBOX
from phantoms_dagster.resilience.scopes import ROUTES
from phantoms_dagster.store.accounts import Accounts
from phantoms_dagster.store.audit import AuditRow
from phantoms_dagster.store.provider_traffic import SLICE_SECONDS, SLICES, ProviderTraffic, Slice, Waiter
from phantoms_dagster.wiring.breaker_switch import BreakerSwitch, BreakerSwitched, subject_of
from phantoms_dagster.wiring.endpoints import INTEGRATIONS, spec_of
from phantoms_dagster.wiring.outages import stages_of
from phantoms_dagster.wiring.provider_status import ProviderStatus, read_provider_status
from phantoms_dagster.wiring.watching import PoolView

TITLES = {
    **{name: spec_of(name).title for name in INTEGRATIONS},
    "media": "Media store",
}
# The durations that the form offers for tripping a breaker, besides "until it is reset".
SPANS = ((600, "10 minutes"), (3_600, "1 hour"), (21_600, "6 hours"), (86_400, "1 day"))
_NEVER = timedelta(days=365)
# The audit log entry is written shortly after the breaker changed.
_SAME_MOMENT = timedelta(seconds=10)


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/providers", include_in_schema=False)(providers)
    app.get("/providers/{provider}", include_in_schema=False)(one)
    app.post("/providers/{provider}/trip", include_in_schema=False)(trip)
    app.post("/providers/{provider}/reset", include_in_schema=False)(reset)


@dataclass(frozen=True)
class BreakerLine:
    """A breaker for display. `label` says which of the provider's breakers it is; `next` what will happen automatically."""

    state: BreakerState
    label: str
    sandbox: bool
    next: str


@dataclass(frozen=True)
class Change:
    """A state change of a breaker. `who` is the person who did it; empty when it happened automatically."""

    change: Transition
    breaker: str
    who: str


@dataclass(frozen=True)
class ProviderView:
    """A provider for display. `worst` is the worst state of its breakers; `waiting` counts waiting videos by stage."""

    name: str
    title: str
    worst: str
    lines: Sequence[BreakerLine]
    pools: Sequence[PoolView]
    accounts: Sequence[Account]
    waiting: Mapping[str, int]
    hour: Sequence[Slice]
    hour_starts: Sequence[datetime]
    plot: Plot

    @property
    def path(self) -> str:
        """The path of its page."""
        return f"/providers/{quote(self.name)}"

    @property
    def ended(self) -> int:
        """The number of attempts that ended in the last hour."""
        return sum(s.well + s.badly for s in self.hour)


def providers(visit: CurrentVisit) -> Response:
    """Show all providers, those in trouble first."""
    look = read_provider_status(visit.desk.settings)
    views = _views(visit, look)
    views.sort(key=lambda view: ("open", "half-open", "closed").index(view.worst))
    return page(visit, "providers.html", views=views, problem=look.problem)


def one(visit: CurrentVisit, provider: str) -> Response:
    """Show one provider, with its history, the waiting videos and the forms."""
    if provider not in TITLES:
        raise NotFound(f"There is no provider {provider}.")
    settings = visit.desk.settings
    names = [name for name in _names(read_provider_status(settings)) if _provider(name) == provider] or [provider]
    look = read_provider_status(settings, history_of=names)
    view = next(view for view in _views(visit, look) if view.name == provider)
    return page(
        visit,
        "provider.html",
        view=view,
        problem=look.problem,
        history=_history(visit, look),
        waiters=_waiters(visit, provider),
        spans=SPANS,
    )


def trip(visit: CurrentVisit, provider: str, form: Form) -> Response:
    """Open a breaker by hand."""
    given = field(form, "seconds", most=12)
    try:
        seconds = float(given) if given else None
    except ValueError:
        raise InvalidInput("the duration must be a number of seconds") from None
    name = _of(provider, field(form, "breaker", most=200))
    done = asyncio.run(_switch(visit).trip(name, visit.actor, why=visible_text(form, "why"), seconds=seconds))
    until = "until it is reset" if seconds is None else f"until it is probed in {_span(seconds)}"
    more = f" Calls to the sandbox continue; their breaker is {SANDBOX}{name}." if done.sandbox_goes_on else ""
    return redirect_to(
        visit, f"/providers/{quote(provider)}", _told(done, f"{name} is open {until}. Videos wait; nothing fails.{more}"), "info"
    )


def reset(visit: CurrentVisit, provider: str, form: Form) -> Response:
    """Close a breaker by hand."""
    name = _of(provider, field(form, "breaker", most=200))
    done = asyncio.run(_switch(visit).reset(name, visit.actor, why=visible_text(form, "why")))
    return redirect_to(visit, f"/providers/{quote(provider)}", _told(done, f"{name} is closed. Calls go out again."))


def _switch(visit: Visit) -> BreakerSwitch:
    return BreakerSwitch(visit.desk.settings, visit.desk.audit.write)


def _told(done: BreakerSwitched, said: str) -> str:
    return said if done.noted else f"{said} This is not in the audit log, because PostgreSQL does not answer."


def _span(seconds: float) -> str:
    return next((words for value, words in SPANS if value == seconds), f"{seconds:g} s")


def _of(provider: str, breaker: str) -> str:
    """Return the breaker that the form names. Raises NotFound when it belongs to another provider."""
    if _provider(breaker) != provider:
        raise NotFound(f"{provider} has no breaker {breaker!r}.")
    return breaker


def _provider(breaker: str) -> str:
    """Return the provider of a breaker: `youtube` for `sandbox/youtube_metrics:main`."""
    return breaker.removeprefix(SANDBOX).partition(":")[0].partition("_")[0]


def _names(look: ProviderStatus) -> list[str]:
    return [state.name for state in look.breakers]


# --- the views


def _views(visit: Visit, look: ProviderStatus) -> list[ProviderView]:
    desk = visit.desk
    traffic, accounts = ProviderTraffic(desk.services.engine), Accounts(desk.services.engine).all()
    hour, counts = traffic.last_hour(), traffic.counts([name for name in STAGES if name != "approval"])
    return [
        _view(name, look, [a for a in accounts if str(a.platform) == name], hour.get(name, (Slice(),) * SLICES), counts)
        for name in TITLES
    ]


def _view(
    name: str, look: ProviderStatus, accounts: Sequence[Account], hour: Sequence[Slice], counts: Mapping[str, int]
) -> ProviderView:
    states = [state for state in look.breakers if _provider(state.name) == name]
    if not any(state.name.removeprefix(SANDBOX) == name for state in states):
        states.insert(0, BreakerState(name=name, state="closed", calls=0, failures=0))
    lines = [_line(state) for state in sorted(states, key=lambda state: (state.name.startswith(SANDBOX), state.name))]
    worst = next((state for state in ("open", "half-open") if any(line.state.state == state for line in lines)), "closed")
    pools = {route.pool for route in ROUTES.get(name, ())}
    now = datetime.now(UTC)
    starts = [now - timedelta(seconds=SLICE_SECONDS * (SLICES - n)) for n in range(SLICES)]
    return ProviderView(
        name=name,
        title=TITLES[name],
        worst=worst,
        lines=lines,
        pools=[pool for pool in look.pools if pool.pool.removeprefix(SANDBOX).partition(":")[0] in pools and _telling(pool)],
        accounts=accounts,
        waiting={stage: counts[stage] for stage in STAGES if stage in stages_of(name) and counts.get(stage)}
        if name != "media"
        else {},
        hour=hour,
        hour_starts=starts,
        plot=_plot(TITLES[name], hour, starts),
    )


def _telling(pool: PoolView) -> bool:
    """Whether a pool is worth showing: it was used, or has a quota of its own."""
    return pool.used or (pool.quota is not None and ":" not in pool.pool)


def _plot(title: str, hour: Sequence[Slice], starts: Sequence[datetime]) -> Plot:
    well, badly = sum(s.well for s in hour), sum(s.badly for s in hour)
    ended = counted(well + badly, "attempt")
    summary = f"{title}: {ended} ended in the last hour, {badly} of them with an error. A column is five minutes."
    values = [
        [("well", s.well, f"{at:%H:%M} UTC: {s.well} succeeded"), ("badly", s.badly, f"{at:%H:%M} UTC: {s.badly} failed")]
        for s, at in zip(hour, starts, strict=True)
    ]
    ticks = [f"-{60 - 5 * n} min" if n in (0, 6) else "now" if n == SLICES - 1 else "" for n in range(SLICES)]
    return columns(values, ticks, summary)


def _line(state: BreakerState) -> BreakerLine:
    name = state.name.removeprefix(SANDBOX)
    base, _, account = name.partition(":")
    part = {"metrics": "reading results", "files": "files"}.get(base.partition("_")[2], base.partition("_")[2])
    label = ", ".join(word for word in (part, f"account {account}" if account else "") if word) or "all calls"
    return BreakerLine(state, label, state.name != name, _next(state))


def _next(state: BreakerState) -> str:
    if state.state == "closed":
        return ""
    if state.state == "half-open":
        return "a probe is under way"
    if state.until is None or state.until - datetime.now(UTC) > _NEVER:
        return "open until a person resets it"
    return f"next probe from {state.until:%H:%M:%S} UTC"


def _waiters(visit: Visit, provider: str) -> list[Waiter]:
    stages = [] if provider == "media" else [name for name in STAGES if name in stages_of(provider)]
    return ProviderTraffic(visit.desk.reading).waiting(stages)


def _history(visit: Visit, look: ProviderStatus) -> list[Change]:
    """Return the state changes of these breakers, newest first, with the person where one did it."""
    found = []
    for breaker, changes in look.history.items():
        rows = visit.desk.audit.page(subject=subject_of(breaker), limit=100) if changes else []
        found += [Change(change, breaker, _who(change, rows)) for change in changes]
    return sorted(found, key=lambda change: change.change.at, reverse=True)[:100]


def _who(change: Transition, rows: Sequence[AuditRow]) -> str:
    """Return the person who made this change, according to the audit log; empty when none did."""
    for row in rows:
        if abs(row.at - change.at) < _SAME_MOMENT and (row.after or {}).get("why") == change.why:
            return row.who
    return ""
