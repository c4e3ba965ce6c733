"""The lines about one video from the log files of all processes."""

from __future__ import annotations

import json
from pathlib import Path

from phantoms_dagster.cli.log_files import LogFiles

KEY = "eels-20261126-7f3a"


def write(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    with path.open("a", encoding="utf-8") as opened:
        opened.write("".join(f"{line}\n" for line in lines))
    return path


def test_the_lines_of_all_processes_come_in_the_order_of_time_whatever_their_format(tmp_path: Path) -> None:
    write(
        tmp_path, "workers.log", f"2026-11-26T10:00:02.500Z INFO a: made video={KEY}", "2026-11-26T10:00:03Z INFO a: other video=x"
    )
    write(tmp_path, "daemon.log", f"2026-11-26 10:00:01 +0000 - dagster - INFO - run for {KEY}")
    write(tmp_path, "metrics.log", json.dumps({"time": "2026-11-26T10:00:02.100Z", "message": "m", "video": KEY}))
    write(tmp_path, "workers.log.1", f"2026-11-26T12:59:00+03:00 INFO a: first {KEY}")
    found = LogFiles(tmp_path, KEY).read()
    assert [line.process for line in found] == ["workers", "daemon", "metrics", "workers"]
    assert found[0].text.endswith(f"first {KEY}")


def test_a_traceback_belongs_to_the_line_before_it(tmp_path: Path) -> None:
    trace = ["Traceback (most recent call last):", "  File x", "ValueError: no"]
    write(tmp_path, "w.log", f"2026-11-26T10:00:00Z ERROR a: failed video={KEY}", *trace, "2026-11-26T10:00:01Z INFO a: next")
    [line] = LogFiles(tmp_path, KEY).read()
    assert line.text.splitlines()[1:] == trace


def test_a_key_that_another_one_begins_with_or_ends_in_is_not_taken_for_it(tmp_path: Path) -> None:
    others = [f"{KEY}-2", f"more-{KEY}", f"{KEY}0"]
    write(tmp_path, "w.log", *(f"2026-11-26T10:00:00Z INFO a: video={key}" for key in others))
    write(tmp_path, "w.log", f"2026-11-26T10:00:01Z INFO a: marker={KEY}-youtube", f"2026-11-26T10:00:02Z INFO a: {KEY}, done")
    assert [line.text.split()[-1] for line in LogFiles(tmp_path, KEY).read()] == [f"marker={KEY}-youtube", "done"]


def test_following_reads_each_line_once_also_when_a_file_is_rotated_or_begun(tmp_path: Path) -> None:
    log = write(tmp_path, "w.log", f"2026-11-26T10:00:00Z INFO a: 1 {KEY}")
    files = LogFiles(tmp_path, KEY)
    assert len(files.read()) == 1
    assert files.read() == []
    write(tmp_path, "w.log", f"2026-11-26T10:00:01Z INFO a: 2 {KEY}")
    log.rename(tmp_path / "w.log.1")
    write(tmp_path, "w.log", f"2026-11-26T10:00:02Z INFO a: 3 {KEY}")
    write(tmp_path, "v.log", f"2026-11-26T10:00:03Z INFO a: 4 {KEY}")
    assert [line.text.split()[3] for line in files.read()] == ["2", "3", "4"]
    (tmp_path / "w.log.2").write_bytes((tmp_path / "w.log.1").read_bytes())  # rotated by copying
    (tmp_path / "w.log").write_text("")
    assert files.read() == []
    write(tmp_path, "w.log", f"2026-11-26T10:00:05Z INFO a: 5 {KEY}")
    assert [line.text.split()[3] for line in files.read()] == ["5"]


def test_a_line_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    log = tmp_path / "w.log"
    log.write_text(f"2026-11-26T10:00:00Z INFO a: half {KEY}")
    files = LogFiles(tmp_path, KEY)
    assert files.read() == []
    log.write_text(f"2026-11-26T10:00:00Z INFO a: half {KEY} and the rest\n")
    assert files.read()[0].text.endswith("and the rest")
