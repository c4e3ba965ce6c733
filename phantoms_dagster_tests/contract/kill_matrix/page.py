"""Writes `docs/never-twice.md` from the outcomes of the matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from phantoms_dagster.domain.reconciliation import NEEDS_PERSON_READS
from phantoms_dagster_tests.contract.kill_matrix.cells import FAULTS, Outcome, why_not
from phantoms_dagster_tests.contract.kill_matrix.routes import ALL_ROUTES, PAID_ROUTES, ROUTES, MatrixRoute

PAGE = Path(__file__).parents[3] / "docs" / "never-twice.md"
INTRODUCTION = """# Can it post twice?

No. This page is the outcome of a test, the kill matrix. It publishes a post on every route onto a platform, lets something go wrong
in one verb of the engine, and then continues as the runner does. At the end it compares our ledger with the ledger of the
[sandbox](sandbox.md), which knows what took effect. `python -m phantoms_dagster_tests.contract.kill_matrix` rewrites this page. The
tests fail when the page and the outcome differ.

A cell with `1` means all of this:

- The platform's ledger has exactly one post, with the bytes that were approved.
- Our ledger says `confirmed`, and names that post.
- No person was needed. The post was never in doubt for {reads} reads or an hour, after which
  [a person is asked](guide.md#settle-a-post-that-may-be-out).
- When the engine was asked once more in the end, there was still one post.

`n/a` means that the cell cannot exist. Its number leads to the reason below the table.
[Architecture](architecture.md#can-it-post-twice-can-it-pay-twice) says why it holds.

The engine, the adapters and the sandbox are the real ones, and all requests go over HTTP. The ledger is one in memory that refuses
the same steps as PostgreSQL. A process is killed by an exception that no code of the product may catch.

The verbs are those of `domain/publication.py`. `open` makes a session, slot or container. `upload` sends bytes that publish
nothing. `commit` sends the request that publishes. `find` asks what an earlier request did, here after a lost answer. `confirm`
reads the post back, here in another process.
"""

PAID = """## Can it pay twice?

A render is ordered once, too. A cell with `1` means that the video is there, and that the renderer's ledger has one order. If the
answer to an order was lost and nothing can tell whether it was taken, it is booked as spent after half an hour and ordered again.
The table shows that as `1, and 1 booked`, and no order is missing from the books. Where [callbacks](provider-events.md) reach us,
the lost order is found and nothing is ordered again, unless the callbacks come a day late.

The verbs are those of `domain/paid_job.py`. `submit` orders, `find` asks for the order (here after a lost answer), `status` asks
whether it is done, `fetch` downloads the file.
"""


def page(outcomes: Mapping[str, Sequence[Outcome]]) -> str:
    """The whole page."""

    introduction = INTRODUCTION.format(reads=NEEDS_PERSON_READS)
    posts = [section(ROUTES[name], outcomes[name]) for name in ROUTES]
    paid = [section(PAID_ROUTES[name], outcomes[name]) for name in PAID_ROUTES]
    return "\n".join([introduction, summary(), *posts, PAID, *paid])


def summary() -> str:
    """How many cells each route has."""
    rows = ["| route | cells | a person is needed |", "| --- | --- | --- |"]
    for routes, what in ((ROUTES, "all posts"), (PAID_ROUTES, "all renders")):
        for name, route in routes.items():
            rows.append(f"| [{route.title}](#{_anchor(route.title)}) | {applicable(name)} | {_capital(route.person) or 'never'} |")
        rows.append(f"| **{what}** | **{sum(map(applicable, routes))}** | |")
    return "\n".join(["## Routes", "", *rows, ""])


def applicable(name: str) -> int:
    """How many cells of the route can exist."""
    route = ALL_ROUTES[name]
    return sum(not why_not(route, verb, fault) for fault in FAULTS for verb in route.verbs)


def section(route: MatrixRoute, outcomes: Sequence[Outcome]) -> str:
    """The table of one route, and the reasons of its dashes."""
    by_place = {(one.fault, one.verb): one for one in outcomes}
    reasons = list(dict.fromkeys(one.does_not_apply for one in outcomes if one.does_not_apply))
    rows = [f"| what happens | {' | '.join(f'`{verb}`' for verb in route.verbs)} |", f"| --- |{' --- |' * len(route.verbs)}"]
    for fault in FAULTS:
        marks = [_mark(by_place[fault, verb], reasons) for verb in route.verbs]
        rows.append(f"| {fault} | {' | '.join(marks)} |")
    notes = [f"{number}. {_capital(reason)}." for number, reason in enumerate(reasons, 1)]
    return "\n".join([f"## {route.title}", "", *rows, "", *notes, *([""] if notes else [])])


def _mark(outcome: Outcome, reasons: Sequence[str]) -> str:
    if outcome.does_not_apply:
        return f"n/a ({reasons.index(outcome.does_not_apply) + 1})"
    if outcome.wrong:
        return f"**wrong**: {outcome.wrong}"
    return f"1, and {outcome.booked} booked" if outcome.booked else "1"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:] if not text.startswith("`") else text


def _anchor(title: str) -> str:
    return "".join(letter for letter in title.lower().replace(" ", "-") if letter.isalnum() or letter == "-")
