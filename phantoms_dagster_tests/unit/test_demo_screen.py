"""The screen of `phantoms demo`: at 80 and at 120 columns, while videos are rendered, in an outage, and at the end."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from phantoms_dagster.cli.demo.end import Proof, compared, slug
from phantoms_dagster.cli.demo.report import next_steps
from phantoms_dagster.cli.demo.reviewer import DemoReviewer
from phantoms_dagster.cli.demo.screen import NOTE, DemoView, VideoLane, drawn, note
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.store.outlook import AttemptSummary

AT = datetime(2026, 11, 26, 12, 1, 23, tzinfo=UTC)
DOWN = ("render API down since 12:01:03 - 3 videos wait, nothing is lost", "bold red")
OPENED = ("its breaker opened at 12:01:06: calls have stopped; 2 probes failed", "red")
WIDTHS = (80, 120)


def states(**known: str) -> dict[str, str]:
    return {name: known.get(stage.slug, "blocked") for name, stage in STAGES.items()}


def in_render(share: float | None = None, title: str = "Why octopuses have three hearts") -> VideoLane:
    return VideoLane(title, states(script="done", voiceover="done", rendered_video="running"), share)


def happening(number: int) -> AttemptSummary:
    return AttemptSummary(number, "why-octopuses-have-three-hearts-20261126-10e6", "voiceover", "done", AT, AT, None, None, None)


def lines(view: DemoView, width: int, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(drawn(view, width=width, height=height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def view(lanes: Sequence[VideoLane], **more: Any) -> DemoView:
    return DemoView(AT, 34.2, lanes, **{"latest": [happening(n) for n in range(40)], **more})


@pytest.mark.parametrize("width", WIDTHS)
def test_each_video_has_a_bar_that_moves_while_it_is_written(width: int) -> None:
    first = lines(view([in_render(0.25), in_render(None, "How honey stays good for thousands of years")]), width)
    later = lines(view([in_render(0.75), in_render(None, "How honey stays good for thousands of years")]), width)
    [before], [after] = ([line for line in shown if "rendering " in line and "%" in line] for shown in (first, later))
    assert "rendering 25%" in before
    assert "rendering 75%" in after
    assert "Why octopuses have three hearts" in first
    assert "How honey stays good for thousands of years" in first
    assert 0 < before.count("━") < after.count("━")
    assert before.count("━") + before.count("─") == after.count("━") + after.count("─") >= 12
    assert any("queued for rendering" in line for line in first)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("videos", [1, 3, 10, 40])
def test_the_screen_fits_the_terminal_with_any_number_of_videos_and_keeps_the_outage_whole(width: int, videos: int) -> None:
    title = "A title that is as long as titles may be, with 写真 in it " * 3
    shown = lines(view([in_render(0.5, title)] * videos, outage=[DOWN, OPENED], down=True), width)
    assert len(shown) <= 24
    assert max(cell_len(line) for line in shown) <= width
    assert DOWN[0] in shown
    assert OPENED[0] in shown
    assert any("12:01:23" in line for line in shown)
    if videos == 40:
        assert any(line.startswith("rendered_video") and "40 running" in line for line in shown)
    elif videos < 10:
        assert sum("waits for the render API" in line for line in shown) == videos
        assert any("voiceover" in line and "done" in line for line in shown), "the newest events are shown"


def test_the_newest_events_are_in_the_order_of_their_ends_and_one_for_each_stage_of_a_video() -> None:
    key, later = "why-octopuses-have-three-hearts-20261126-10e6", AT + timedelta(seconds=5)
    latest = [
        AttemptSummary(4, "how-honey-stays-good-20261126-1961", "script", "intent", AT, None, None, None, None),
        AttemptSummary(3, key, "script", "deferred", AT, later, "not_yet", None, "the breaker of sandbox/openai is open"),
        AttemptSummary(2, key, "script", "deferred", AT, AT, "not_yet", None, "the breaker of sandbox/openai is open"),
    ]
    [first, second] = lines(view([in_render(0.5)], latest=latest), 80)[-2:]
    assert "deferred why-octopuses-have-three-hearts" in first
    assert ":28 " in first
    assert "began    how-honey-stays-good" in second


def test_an_outage_that_does_not_fit_a_narrow_terminal_breaks_between_words() -> None:
    shown = lines(view([in_render(0.5)], outage=[DOWN]), 40)
    assert max(cell_len(line) for line in shown) <= 40
    assert DOWN[0] in " ".join(line.strip() for line in shown)


def test_reviewers_get_one_notice_with_a_whole_address_for_each_new_video(tmp_path: Path) -> None:
    person = DemoReviewer("http://127.0.0.1:4000/", tmp_path / "a home of a very long name")
    assert person.look(0) == []
    told = person.look(1)
    assert told[0].startswith("1 video waits for you.")
    assert told[1].strip() == "http://127.0.0.1:4000/review"
    assert told[3].strip() == f"PHANTOMS_HOME='{tmp_path}/a home of a very long name' phantoms approve --all"
    assert person.look(1) == []
    assert person.look(3)[0].startswith("3 videos wait for you.")
    assert told[3] in lines(view([in_render(1.0)], outage=person.sentences), 300)
    assert person.look(2) == []
    assert person.look(0) == ["you have decided on every video; the demo continues"]
    assert person.sentences == []


def test_a_bar_only_grows_on_the_way_from_brief_to_posts() -> None:
    way = [
        VideoLane("t", states(script="ready")),
        VideoLane("t", states(script="done", voiceover="running")),
        in_render(None),
        in_render(0.5),
        in_render(1.0),
        VideoLane("t", states(script="done", voiceover="done", rendered_video="done", approval="ready")),
        VideoLane("t", {name: "done" if "tiktok" not in name else "running" for name in STAGES}),
        VideoLane("t", dict.fromkeys(STAGES, "done")),
    ]
    shares = [lane.share for lane in way]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)


def test_every_note_fits_its_column_and_says_what_failed() -> None:
    lanes = [
        VideoLane("t", states(**{stage.slug: state})) for stage in STAGES.values() for state in ("running", "failed", "rejected")
    ]
    lanes += [VideoLane("t", dict.fromkeys(STAGES, "done")), in_render(None), in_render(0.999)]
    notes = [note(lane, down=down)[0] for lane in lanes for down in (False, True)]
    assert max(map(len, notes)) <= NOTE
    assert "rendered_video failed" in notes
    assert "posted everywhere" in notes


def test_the_proof_counts_what_is_doubled_missing_and_unknown() -> None:
    assert compared(2, {"a", "b"}, {"a": 1, "b": 1}) == Proof(2, 2, 0, 0)
    assert compared(2, {"a", "b"}, {"a": 1, "b": 1}).holds
    assert compared(2, {"a", "b"}, {"a": 2, "b": 1}) == Proof(2, 3, 1, 0)
    assert compared(2, {"a"}, {"a": 1}) == Proof(2, 1, 0, 1)
    assert compared(1, {"a"}, {"a": 1, "stranger": 1}) == Proof(1, 2, 1, 0)
    assert not any(compared(2, {"a", "b"}, there).holds for there in ({"a": 2}, {"a": 1}, {"a": 1, "b": 1, "c": 1}))


def test_files_are_named_by_title_in_any_script() -> None:
    assert slug("Why octopuses have three hearts") == "why-octopuses-have-three-hearts"
    assert slug("It's 100 % true: A/B..") == "its-100-true-a-b"
    assert slug("Сколько сердец?") == "сколько-сердец"
    assert slug("../../etc/passwd") == "etc-passwd"
    assert slug("???") == "video"
    assert len(slug("word " * 200)) <= 80


@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize("faults", [False, True])
@pytest.mark.parametrize("review", [False, True])
def test_there_are_three_or_four_sentences_on_what_to_try_next(wait: bool, faults: bool, review: bool) -> None:
    sentences = next_steps("http://127.0.0.1:3000", wait=wait, faults=faults, review=review)
    assert len(sentences) == 3 + (not review)
    assert ("--review" in " ".join(sentences)) is not review
    assert all(sentence.endswith(".") for sentence in sentences)
    said = " ".join(sentences)
    assert ("--wait" in said) is not wait
    assert ("--faults" in said) is not faults
    assert ("http://127.0.0.1:3000/assets/rendered_video" in said) is wait
