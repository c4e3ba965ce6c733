"""The media store: whole files under the name of their hash, however many write at once."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from phantoms_dagster.domain.errors import NotFound, Permanent
from phantoms_dagster.media import files
from phantoms_dagster.media.files import FolderStore


def _stored(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


async def test_a_file_from_elsewhere_is_copied_and_one_from_scratch_is_moved(tmp_path: Path) -> None:
    store, theirs = FolderStore(tmp_path / "media"), tmp_path / "theirs.MP4"
    theirs.write_bytes(b"theirs")
    ours = store.scratch() / "ours.wav"
    ours.write_bytes(b"ours")
    copied, moved = await store.add(theirs), await store.add(ours)
    assert copied.suffix == ".mp4"
    assert copied.sha256 == hashlib.sha256(b"theirs").hexdigest()
    assert (await store.local(copied)).read_bytes() == b"theirs"
    assert (await store.local(moved)).read_bytes() == b"ours"
    assert theirs.exists()
    assert not ours.exists()


async def test_the_same_bytes_added_fifty_times_at_once_are_stored_once(tmp_path: Path) -> None:
    stores = [FolderStore(tmp_path / "media") for _ in range(5)]
    source = tmp_path / "a.bin"
    source.write_bytes(os.urandom(300_000))
    found = await asyncio.gather(*(stores[i % 5].add(source) for i in range(50)))
    assert len(set(found)) == 1
    assert [path.name for path in _stored(tmp_path / "media")] == [Path(found[0].name).name]


async def test_a_copy_that_breaks_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, source = FolderStore(tmp_path / "media"), tmp_path / "a.bin"
    source.write_bytes(b"abc")

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_sync", full)
    with pytest.raises(OSError, match="No space"):
        await store.add(source)
    assert _stored(tmp_path / "media") == []


async def test_a_missing_or_damaged_file_is_not_found(tmp_path: Path) -> None:
    store, source = FolderStore(tmp_path / "media"), tmp_path / "a.bin"
    source.write_bytes(b"abc")
    file = await store.add(source)
    with pytest.raises(NotFound, match="has no"):
        await store.local(file.model_copy(update={"sha256": "0" * 64}))
    (tmp_path / "media" / file.name).write_bytes(b"ab")
    with pytest.raises(NotFound, match="damaged"):
        await store.local(file)
    await store.add(source)
    assert (await store.local(file)).read_bytes() == b"abc", "adding again mends it"


@pytest.mark.parametrize(("name", "content"), [("empty.mp4", b""), ("noname", b"x"), ("odd.m p", b"x")])
async def test_an_empty_file_or_an_odd_suffix_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Permanent):
        await FolderStore(tmp_path / "media").add(tmp_path / name)
    assert _stored(tmp_path / "media") == []


def test_scratch_folders_are_fresh_and_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    left = FolderStore(tmp_path).scratch()
    recent = FolderStore(tmp_path).scratch()
    os.utime(left, (0, 0))
    store = FolderStore(tmp_path)
    assert store.scratch() != store.scratch()
    assert not left.exists()
    assert recent.exists()
