"""What counts as proof that a post is gone, private or blocked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from phantoms_dagster.domain.errors import Disconnected
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import AccountIdentity, Metrics, PostStanding
from phantoms_dagster.domain.post_changes import StateAfter
from phantoms_dagster.domain.readback import PostReading, PublishedRow
from phantoms_dagster.production.post_changes import ChangeRound, notice_changes

TIKTOK = Platform("tiktok")
HOUR = timedelta(hours=1)
GONE = PostReading(1, HOUR, gone=True)
SHOWN = PostReading(1, HOUR, metrics=Metrics("42"))


class Reader:
    """A platform that says the same about every post."""

    platform = TIKTOK

    def __init__(self, state: str, *, tells_more: bool = False) -> None:
        self.state, self.asked = state, 0
        self.tells_more_than_metrics = tells_more

    async def look(self, account: str, references: Sequence[str]) -> Sequence[PostStanding]:
        self.asked += len(references)
        return [PostStanding(one, self.state, "it says so") for one in references]  # type: ignore[arg-type]


class Identity:
    """An account that answers, or does not."""

    platform = TIKTOK

    def __init__(self, *, answers: bool = True) -> None:
        self.answers = answers

    async def read(self, account: str) -> AccountIdentity:
        if not self.answers:
            raise Disconnected("the token is refused", provider="tiktok")
        return AccountIdentity("id", "label")


def post(gone_for: timedelta | None = None) -> PublishedRow:
    return PublishedRow(1, "v1", TIKTOK, "main", "42", gone=gone_for is not None, gone_for=gone_for)


async def noticed(
    row: PublishedRow, reading: PostReading, reader: Reader, *, known: StateAfter | None = None, answers: bool = True
) -> tuple[list[str], ChangeRound]:
    states: dict[int, StateAfter] = {} if known is None else {1: known}
    result = await notice_changes([row], [reading], states, {TIKTOK: reader}, {TIKTOK: Identity(answers=answers)})
    return [one.change.state for one in result.changes], result


async def test_one_read_that_does_not_show_a_post_is_no_proof() -> None:
    for since in (None, timedelta(minutes=59)):
        assert (await noticed(post(since), GONE, Reader("gone")))[0] == []


async def test_two_reads_an_hour_apart_and_a_look_at_this_post_are_proof() -> None:
    assert (await noticed(post(HOUR), GONE, Reader("gone")))[0] == ["gone"]
    assert (await noticed(post(HOUR), GONE, Reader("public")))[0] == []
    assert (await noticed(post(HOUR), GONE, Reader("gone"), known="gone"))[0] == []


async def test_nothing_is_believed_of_an_account_that_does_not_answer_itself() -> None:
    states, result = await noticed(post(HOUR), GONE, Reader("gone"), answers=False)
    assert (states, result.problems) == ([], {"tiktok:main": "the token is refused"})


async def test_a_failed_read_says_nothing() -> None:
    reader = Reader("gone", tells_more=True)
    assert (await noticed(post(HOUR), PostReading(1, HOUR, problem="500"), reader))[0] == []
    assert reader.asked == 0


async def test_what_a_platform_says_in_words_counts_at_once_and_once() -> None:
    for state in ("private", "blocked"):
        assert (await noticed(post(), SHOWN, Reader(state, tells_more=True)))[0] == [state]
        assert (await noticed(post(), SHOWN, Reader(state, tells_more=True), known=state))[0] == []


async def test_a_post_that_is_shown_again_is_public_again() -> None:
    reader = Reader("public")
    assert (await noticed(post(HOUR), SHOWN, reader, known="gone"))[0] == ["public"]
    assert (await noticed(post(), SHOWN, reader))[0] == []
    assert reader.asked == 0  # metrics said enough


class OddReader(Reader):
    """A platform whose answer nobody expected."""

    async def look(self, account: str, references: Sequence[str]) -> Sequence[PostStanding]:
        if account == "odd":
            raise ValueError("Invalid isoformat string: 'soon'")
        return await super().look(account, references)


async def test_an_odd_answer_about_one_account_keeps_no_other_from_being_asked() -> None:
    rows = [post(HOUR), replace(post(HOUR), post_id=2, account="odd")]
    readings = [GONE, replace(GONE, post_id=2)]
    result = await notice_changes(rows, readings, {}, {TIKTOK: OddReader("gone")}, {TIKTOK: Identity()})
    assert [(one.post.post_id, one.change.state) for one in result.changes] == [(1, "gone")]
    assert result.problems == {"tiktok:odd": "internal ValueError"}
