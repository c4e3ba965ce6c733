"""The media folder on a full disk and after kills. What every media store promises is in `contract/test_media_stores.py`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from phantoms_dagster.media import files
from phantoms_dagster.media.disk import Disk
from phantoms_dagster.media.files import FolderStore


def _stored(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


async def test_a_copy_that_breaks_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, source = FolderStore(tmp_path / "media"), tmp_path / "a.bin"
    source.write_bytes(b"abc")

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_sync", full)
    with pytest.raises(OSError, match="No space"):
        await store.add(source)
    assert _stored(tmp_path / "media") == []


def test_scratch_folders_are_fresh_and_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    left, file = FolderStore(tmp_path).scratch(), FolderStore(tmp_path).scratch_file(".mp4")
    file.write_bytes(b"half a video")
    recent = FolderStore(tmp_path).scratch()
    os.utime(left, (0, 0))
    os.utime(file, (0, 0))
    store = FolderStore(tmp_path)
    assert store.scratch() != store.scratch()
    assert not left.exists()
    assert not file.exists()
    assert recent.exists()


def test_no_other_user_of_the_machine_can_look_into_a_media_folder_that_we_make(tmp_path: Path) -> None:
    """Anyone with an account on the machine could watch videos that nobody had approved yet."""
    Disk(tmp_path / "deep" / "media", what="media folder", marked=True).identify(known=False)
    assert (tmp_path / "deep" / "media").stat().st_mode & 0o777 == 0o700


def test_a_media_folder_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    shared = tmp_path / "media"
    shared.mkdir()
    shared.chmod(0o775)
    disk = Disk(shared, what="media folder", marked=True)
    disk.identify(known=False)
    disk.check_usable(writing=True)
    assert shared.stat().st_mode & 0o777 == 0o775
