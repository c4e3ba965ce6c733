"""Where the tests' servers keep their data: nothing is left in memory, and no living session loses its folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from phantoms_dagster_tests.server_home import LOCKED_WITHIN_SECONDS, PREFIX, server_home


def made_long_ago(folder: Path) -> None:
    then = folder.stat().st_mtime - LOCKED_WITHIN_SECONDS - 1
    os.utime(folder, (then, then))


def no_disk() -> Path:
    raise AssertionError("there is room in memory")


def test_the_folder_is_in_memory_and_is_gone_afterwards(tmp_path: Path) -> None:
    with server_home(no_disk, memory=tmp_path, enough=0) as home:
        (home / "file").touch()
        assert home.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("memory", ["full", "missing"])
def test_without_room_in_memory_the_folder_is_on_a_disk(tmp_path: Path, memory: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    place, enough = (tmp_path, 1 << 60) if memory == "full" else (tmp_path / "missing", 0)
    with server_home(lambda: disk, memory=place, enough=enough) as home:
        assert home == disk
    assert not disk.exists()


def test_the_folder_of_a_session_that_was_killed_is_removed_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    killed, begins, other = tmp_path / f"{PREFIX}killed", tmp_path / f"{PREFIX}begins", tmp_path / "other"
    for folder in (killed, begins, other):
        folder.mkdir()
        (folder / "file").touch()
    with server_home(no_disk, memory=tmp_path, enough=0) as living:
        for folder in (killed, other, living):
            made_long_ago(folder)
        with server_home(no_disk, memory=tmp_path, enough=0) as second:
            assert {path.name for path in tmp_path.iterdir()} == {begins.name, other.name, living.name, second.name}
