"""The inbox folder: which files it takes, which it leaves alone, and that neither a crash nor a bad file affects the others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from phantoms_dagster.domain.channels import default_text, parse
from phantoms_dagster.domain.models import Brief
from phantoms_dagster.production import inbox as inbox_module
from phantoms_dagster.production.inbox import InboxReport, take_inbox

CHANNELS = parse(default_text())


class MediaFiles:
    """A catalogue that knows a brief by its fingerprint."""

    def __init__(self) -> None:
        self.titles: dict[str, str] = {}
        self.sources: list[str] = []

    def add(self, briefs: Sequence[Brief], source: str) -> tuple[int, int]:
        new = [b for b in briefs if b.fingerprint not in self.titles]
        self.titles.update({b.fingerprint: b.title for b in new})
        self.sources.append(source)
        return len(new), len(briefs) - len(new)


@pytest.fixture
def media_files() -> MediaFiles:
    return MediaFiles()


def take(folder: Path, media_files: MediaFiles, quiet_seconds: float = 0.0) -> list[InboxReport]:
    return take_inbox(folder, lambda: CHANNELS, media_files.add, quiet_seconds=quiet_seconds)


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() or p.is_symlink())


def test_a_good_file_is_taken_and_a_bad_one_moved_aside_with_its_errors(tmp_path: Path, media_files: MediaFiles) -> None:
    (tmp_path / "a.csv").write_text("title\nA\n")
    (tmp_path / "b.csv").write_text("title,priority\nB,1\nC,urgent\n")
    reports = take(tmp_path, media_files)
    assert [(r.file, r.taken, r.known, len(r.refused)) for r in reports] == [("a.csv", 1, 0, 0), ("b.csv", 1, 0, 1)]
    assert names(tmp_path) == ["refused/b.csv", "refused/b.csv.errors.txt", "taken/a.csv"]
    assert (tmp_path / "refused/b.csv.errors.txt").read_text().startswith("b.csv:3: bad priority")
    assert sorted(media_files.titles.values()) == ["A", "B"]
    assert media_files.sources == ["inbox:a.csv", "inbox:b.csv"]


def test_no_inbox_is_an_empty_inbox(tmp_path: Path, media_files: MediaFiles) -> None:
    assert take(tmp_path / "none", media_files) == []


def test_a_file_touched_a_moment_ago_is_left_alone_even_if_its_copy_kept_an_old_date(
    tmp_path: Path, media_files: MediaFiles
) -> None:
    (tmp_path / "a.csv").write_text("title\nhalf a ti")
    os.utime(tmp_path / "a.csv", (0, 0))
    assert take(tmp_path, media_files, quiet_seconds=60) == []
    assert names(tmp_path) == ["a.csv"]
    assert not media_files.titles


def test_a_file_dated_in_the_future_is_not_left_forever(tmp_path: Path, media_files: MediaFiles) -> None:
    (tmp_path / "a.csv").write_text("title\nA\n")
    os.utime(tmp_path / "a.csv", (2**33, 2**33))
    assert [r.taken for r in take(tmp_path, media_files)] == [1]


def test_a_file_that_grows_while_it_is_read_stays_and_is_taken_whole_later(tmp_path: Path, media_files: MediaFiles) -> None:
    path = tmp_path / "a.csv"
    path.write_text("title\nA\n")

    def add_while_it_grows(briefs: Sequence[Brief], source: str) -> tuple[int, int]:
        with path.open("a") as file:
            file.write("B\n")
        return media_files.add(briefs, source)

    assert take_inbox(tmp_path, lambda: CHANNELS, add_while_it_grows, quiet_seconds=0) == []
    assert names(tmp_path) == ["a.csv"]
    assert [(r.taken, r.known) for r in take(tmp_path, media_files)] == [(1, 1)]
    assert sorted(media_files.titles.values()) == ["A", "B"]


def test_a_crash_between_adding_and_moving_doubles_nothing(
    tmp_path: Path, media_files: MediaFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.csv").write_text("title\nA\nB\n,\n,\nC,too much\n")

    def killed(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            take(tmp_path, media_files)
    assert [(r.taken, r.known) for r in take(tmp_path, media_files)] == [(0, 2)]
    assert len(media_files.titles) == 2
    assert names(tmp_path) == ["refused/a.csv", "refused/a.csv.errors.txt"]


def test_a_second_file_of_the_same_name_replaces_nothing(tmp_path: Path, media_files: MediaFiles) -> None:
    for title in ("A", "B", "C"):
        (tmp_path / "a.csv").write_text(f"title\n{title}\n")
        take(tmp_path, media_files)
    assert names(tmp_path) == ["taken/a-2.csv", "taken/a-3.csv", "taken/a.csv"]
    assert (tmp_path / "taken/a.csv").read_text() == "title\nA\n"
    assert (tmp_path / "taken/a-3.csv").read_text() == "title\nC\n"


def test_an_unreadable_file_is_reported_and_blocks_no_other(
    tmp_path: Path, media_files: MediaFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.csv").write_text(f"title\n{name}\n")
    opened = Path.open

    def refusing(self: Path, *args: Any, **kwargs: Any) -> IO[Any]:
        if self.name == "b.csv":
            raise PermissionError(13, "Permission denied", str(self))
        found: IO[Any] = opened(self, *args, **kwargs)
        return found

    monkeypatch.setattr(Path, "open", refusing)
    reports = take(tmp_path, media_files)
    assert [(r.file, r.taken) for r in reports] == [("a.csv", 1), ("b.csv", 0), ("c.csv", 1)]
    assert "Permission denied" in reports[1].refused[0].reason
    assert names(tmp_path) == ["b.csv", "taken/a.csv", "taken/c.csv"]


def test_a_file_that_cannot_be_moved_is_reported_and_blocks_no_other(
    tmp_path: Path, media_files: MediaFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text(f"title\n{name}\n")
    rename = Path.rename

    def refusing(self: Path, target: Path) -> Path:
        if self.name == "a.csv":
            raise OSError(18, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refusing)
    reports = take(tmp_path, media_files)
    assert [r.taken for r in reports] == [0, 1]
    assert "stays in the inbox" in reports[0].refused[0].reason


def test_a_file_whose_name_is_as_long_as_can_be_is_moved_with_its_errors(tmp_path: Path, media_files: MediaFiles) -> None:
    (tmp_path / ("ä" * 125 + ".csv")).write_text("title\n,\nA,b\n")
    [report] = take(tmp_path, media_files)
    assert "2 columns where the header has 1" in report.refused[0].reason
    assert names(tmp_path) == ["refused/" + "ä" * 98 + ".csv", "refused/" + "ä" * 98 + ".csv.errors.txt"]


def test_a_file_that_another_daemon_takes_first_is_none_of_our_business(
    tmp_path: Path, media_files: MediaFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.csv").write_text("title\nA\n")
    (tmp_path / "b.csv").write_text("title\nB\n")
    free = inbox_module._free

    def taken_meanwhile(place: Path) -> Path:
        if place.name == "a.csv":
            (tmp_path / "a.csv").unlink()
        return free(place)

    monkeypatch.setattr(inbox_module, "_free", taken_meanwhile)
    assert [(r.file, r.taken) for r in take(tmp_path, media_files)] == [("b.csv", 1)]


def test_nothing_in_the_inbox_is_ignored(tmp_path: Path, media_files: MediaFiles) -> None:
    outside, inbox = tmp_path / "outside.csv", tmp_path / "inbox"
    inbox.mkdir()
    outside.write_text("title\nA\n")
    (inbox / "link.csv").symlink_to(outside)
    (inbox / "dangling.csv").symlink_to(tmp_path / "nothing")
    (inbox / "folder.csv").mkdir()
    (inbox / "folder.csv" / "inside.csv").write_text("title\nB\n")
    os.mkfifo(inbox / "pipe.csv")
    (inbox / "notes.docx").write_bytes(b"PK")
    (inbox / "briefs").write_text("title\nC\n")
    reports = take_inbox(inbox, lambda: CHANNELS, media_files.add, quiet_seconds=0)
    reasons = {report.file: report.refused[0].reason for report in reports}
    assert {name: reason.partition(";")[0] for name, reason in reasons.items()} == {
        "link.csv": "is a link",
        "dangling.csv": "is a link",
        "folder.csv": "is a folder",
        "pipe.csv": "is not a regular file",
        "notes.docx": "unknown file type '.docx'",
        "briefs": "unknown file type '(none)'",
    }
    assert sorted(p.name for p in inbox.iterdir()) == ["refused"]
    assert (inbox / "refused/briefs.errors.txt").read_text().startswith("briefs:1: unknown file type")
    assert (inbox / "refused/folder.csv/inside.csv").read_text() == "title\nB\n"
    assert outside.exists()
    assert not media_files.titles


def test_a_name_that_says_it_is_still_being_written_is_believed_for_a_while(tmp_path: Path, media_files: MediaFiles) -> None:
    unfinished = [".hidden.csv", "a.csv.part", "~$b.xlsx"]
    for name in unfinished:
        (tmp_path / name).write_text("title\nA\n")
    assert take_inbox(tmp_path, lambda: CHANNELS, media_files.add, quiet_seconds=0, arriving_seconds=60) == []
    reports = take_inbox(tmp_path, lambda: CHANNELS, media_files.add, quiet_seconds=0, arriving_seconds=0)
    assert sorted(report.file for report in reports) == sorted(unfinished)
    assert all("still being written" in report.refused[0].reason for report in reports)
    assert not media_files.titles


def test_what_operating_systems_leave_in_a_folder_is_not_refused_again_and_again(tmp_path: Path, media_files: MediaFiles) -> None:
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._a.csv", ".gitkeep"):
        (tmp_path / name).write_text("")
    assert take_inbox(tmp_path, lambda: CHANNELS, media_files.add, quiet_seconds=0, arriving_seconds=0) == []
    assert len(names(tmp_path)) == 5


def test_a_file_too_large_for_one_look_is_taken_in_several_and_moved_by_the_last(
    tmp_path: Path, media_files: MediaFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "PAGE", 2)
    (tmp_path / "a.csv").write_text("title\nA\nB\nC\nD\nE\n,too much\n")
    (tmp_path / "b.csv").write_text("title\nF\n")

    def look() -> list[InboxReport]:
        return take_inbox(tmp_path, lambda: CHANNELS, media_files.add, quiet_seconds=0, look_seconds=0)

    [first] = look()
    assert (first.taken, first.left, list(first.refused)) == (2, 3, [])
    assert names(tmp_path) == ["a.csv", "b.csv"]
    monkeypatch.setattr(inbox_module, "PAGE", 5)
    [second] = look()
    assert (second.taken, second.known, second.left, len(second.refused)) == (3, 2, 0, 1)
    assert names(tmp_path) == ["b.csv", "refused/a.csv", "refused/a.csv.errors.txt"]
    assert [report.file for report in look()] == ["b.csv"]
    assert len(media_files.titles) == 6


def test_a_file_with_more_briefs_than_a_look_can_read_is_refused_with_the_way_out(
    tmp_path: Path, media_files: MediaFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "MOST_BRIEFS", 1)
    (tmp_path / "a.csv").write_text("title\nA\nB\n")
    [report] = take(tmp_path, media_files)
    assert "phantoms import" in report.refused[0].reason
    assert names(tmp_path) == ["refused/a.csv", "refused/a.csv.errors.txt"]
    assert not media_files.titles


def test_a_catalogue_that_does_not_answer_leaves_the_file_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("title\nA\n")

    def down(briefs: Sequence[Brief], source: str) -> tuple[int, int]:
        raise ConnectionError("no database")

    [report] = take_inbox(tmp_path, lambda: CHANNELS, down, quiet_seconds=0)
    assert report.taken == 0
    assert names(tmp_path) == ["a.csv"]
