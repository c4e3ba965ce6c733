"""Cached pieces of pages: they are the same as before, and text that people typed never becomes a tag."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from phantoms_dagster.desk.calendar_entries import dots_of
from phantoms_dagster.desk.masking import masked
from phantoms_dagster.desk.pages.review import QueueRow
from phantoms_dagster.desk.render import coded, icon_of, link
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.store.review.queue import ReviewCard

SINCE = datetime(2026, 11, 1, tzinfo=UTC)
CARD = ReviewCard("v1", "<b>Salt & pepper</b>", "sea<>", (Platform("youtube"),), None, 5, SINCE, None, 31.4, None)


def test_a_line_of_the_queue_is_written_once_and_its_words_are_no_tags() -> None:
    row = QueueRow(CARD, "/review/v1?a=1&b=2", None, current=False)
    assert "&lt;b&gt;Salt &amp; pepper&lt;/b&gt;" in row.shown
    assert 'href="/review/v1?a=1&amp;b=2"' in row.shown
    assert "<b>" not in row.shown
    assert row.shown is QueueRow(replace(CARD), row.path, None, current=False).shown


def test_a_line_of_the_queue_that_says_something_else_is_written_again() -> None:
    row = QueueRow(CARD, "/review/v1", None, current=False)
    assert 'aria-current="page"' in replace(row, current=True).shown
    assert "held by ann" in replace(row, card=replace(CARD, held_by="ann")).shown
    assert "1 of 2: bob" in replace(row, card=replace(CARD, first_by="bob")).shown
    assert "P1" in replace(row, card=replace(CARD, priority=1)).shown
    assert "ago" in replace(row, card=replace(CARD, publish_at=SINCE)).shown


def test_symbols_and_platforms_are_the_same_piece_on_every_page() -> None:
    assert icon_of("search") is icon_of("search")
    assert "icons.svg#search" in icon_of("search")
    both = dots_of((Platform("youtube"), Platform("tiktok")))
    assert (both.count('class="dot'), "YouTube, TikTok" in both) == (2, True)


def test_what_is_masked_once_is_masked_each_time() -> None:
    for said in ("Bearer abc.def said no", "at https://example.org/a?upload_id=5 " + "x" * 400):
        assert masked(said) == masked(said)
        assert "abc.def" not in masked(said)
        assert "upload_id=5" not in masked(said)


@pytest.mark.parametrize("url", ["https://a.example/1", "http://127.0.0.1:1/x", "file:///outbox/a/b"])
def test_an_address_of_a_page_is_linked(url: str) -> None:
    assert link(url) == url


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "JavaScript:x", "", "no address"])
def test_no_other_address_is_linked(url: str) -> None:
    assert link(url) == "#"


def test_what_is_between_backticks_is_code_and_nothing_is_a_tag() -> None:
    assert coded("use `a: {b: <i>}` & go") == "use <code>a: {b: &lt;i&gt;}</code> &amp; go"
