"""Issues: dead letters grouped by cause. People acknowledge, resolve and reopen them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import FastAPI, Path, Query

from phantoms_dagster.desk.api.routes import add
from phantoms_dagster.desk.api.values import MOST_ROWS, ApiModel, Limit, Masked, Number, RequestModel, TextInQuery, Words
from phantoms_dagster.desk.visits import CurrentVisit
from phantoms_dagster.store.issues import Issue, IssueLetter, Issues

TAG = "dead letters"
CauseInPath = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$", description="The cause of an issue")]
State = Annotated[Literal["open", "acknowledged", "resolved", "all"], Query()]


class IssueResource(ApiModel):
    """An issue, with the message of its newest letter. `newest` is that letter's id; `open` counts its open letters.

    `came_back`: it was acknowledged or resolved, and newer letters have come since. `said` is the last state that a person set,
    `said_by` that person.
    """

    cause: str
    name: str
    state: str
    stage: str
    provider: str | None
    error_class: str
    code: str | None
    message: Masked
    first_seen: datetime
    last_seen: datetime
    newest: int
    total: int
    open: int
    came_back: bool
    said: str | None
    said_by: str | None
    said_at: datetime | None
    note: str | None


class IssueLetterResource(ApiModel):
    """A dead letter of an issue. `verdict` says what a replay would do: `safe` starts over, `read_back` first asks the provider
    for the outcome, `person` will fail again until a person changes something.
    """

    id: int
    key: str
    title: str
    stage: str
    message: Masked
    created_at: datetime
    verdict: str


class IssueList(ApiModel):
    """Issues, most recently seen first. `total` is the number of matches."""

    issues: list[IssueResource]
    total: int


class IssueDetail(ApiModel):
    """An issue with its open letters, newest first."""

    issue: IssueResource
    letters: list[IssueLetterResource]


class IssueStateChange(RequestModel):
    """A new state for an issue. `seen` is the id of the newest letter that the caller saw; a newer letter reopens the issue."""

    state: Literal["open", "acknowledged", "resolved"]
    seen: Number
    note: Words = ""


def register(app: FastAPI) -> None:
    """Add the routes."""
    add(app, "GET", "/issues", list_issues, tag=TAG)
    add(app, "GET", "/issues/{cause}", show_issue, tag=TAG)
    add(app, "POST", "/issues/{cause}/say", say_of_issue, tag=TAG)


def list_issues(
    visit: CurrentVisit, state: State = "open", provider: TextInQuery = "", q: TextInQuery = "", limit: Limit = 50
) -> IssueList:
    """List the issues in this state that contain all words of `q`. `provider` may be `none`."""
    words = q.casefold().split()
    found = [
        one
        for one in Issues(visit.desk.services.engine).all()
        if state in (one.state, "all") and (not provider or provider == (one.provider or "none")) and one.has(words)
    ]
    return IssueList(issues=[_issue(one) for one in found[:limit]], total=len(found))


def show_issue(visit: CurrentVisit, cause: CauseInPath) -> IssueDetail:
    """Return an issue with its open letters."""
    store = Issues(visit.desk.services.engine)
    found = store.get(cause)
    letters: list[IssueLetter] = store.letters(cause, limit=MOST_ROWS)
    return IssueDetail(issue=_issue(found), letters=[IssueLetterResource.model_validate(one) for one in letters])


def say_of_issue(visit: CurrentVisit, cause: CauseInPath, body: IssueStateChange) -> IssueResource:
    """Acknowledge, resolve or reopen an issue. The next letter with its cause reopens it automatically."""
    said = Issues(visit.desk.services.engine).say(cause, body.state, visit.actor, seen=body.seen, reason=body.note[:1_000])
    return _issue(said)


def _issue(one: Issue) -> IssueResource:
    return IssueResource.model_validate(one)
