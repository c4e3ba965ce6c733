"""What every media store promises, tested with the folder and with an object store on a real S3 server."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import obstore
import pytest

from phantoms_dagster.domain.errors import NotFound, Permanent, Transient
from phantoms_dagster.domain.models import MediaFile
from phantoms_dagster.domain.ports import MediaStore
from phantoms_dagster.media import files as files_module
from phantoms_dagster.media.cache import Cache
from phantoms_dagster.media.files import FolderStore
from phantoms_dagster.media.object_store.client import Bucket
from phantoms_dagster.media.object_store.store import ObjectStore
from phantoms_dagster_tests.s3_server import BUCKET, KEY_ID, SECRET, S3Server, s3_server


@dataclass(frozen=True)
class Shared:
    """A store as several machines have it. `machine` makes one more; `kept` is where the shared files lie; `overwrite` puts
    other bytes under a name.
    """

    machine: Callable[[], MediaStore]
    kept: Path
    scratch: Path
    overwrite: Callable[[str, bytes], object]

    def files(self) -> list[str]:
        found = (path.relative_to(self.kept) for path in self.kept.rglob("*") if path.is_file())
        return sorted(str(path) for path in found if path.parts[0] not in ("scratch", "held"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(params=["folder", "bucket"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Shared:
    if request.param == "folder":
        root = tmp_path / "media"
        return Shared(lambda: FolderStore(root), root, root / "scratch", lambda name, content: (root / name).write_bytes(content))
    server: S3Server = request.getfixturevalue("server")
    prefix, numbers = f"{tmp_path.name}/of", itertools.count(1)

    def machine() -> MediaStore:
        url = f"s3://{BUCKET}/{prefix}"
        bucket = Bucket(url, endpoint_url=server.url, access_key_id=KEY_ID, secret_access_key=SECRET)
        return ObjectStore(bucket, Cache(tmp_path / f"machine-{next(numbers)}", 10**9))

    theirs = server.client(prefix)
    return Shared(
        machine,
        server.folder / BUCKET / prefix,
        tmp_path / "machine-1" / "scratch",
        lambda name, content: obstore.put(theirs, name, content),
    )


async def test_a_file_from_elsewhere_is_copied_and_one_from_scratch_is_moved(shared: Shared, tmp_path: Path) -> None:
    store, theirs = shared.machine(), tmp_path / "theirs.MP4"
    theirs.write_bytes(b"theirs")
    folder = store.scratch()
    ours = folder / "ours.wav"
    ours.write_bytes(b"ours")
    copied, moved = await store.add(theirs), await store.add(ours)
    assert copied == MediaFile(sha256=hashlib.sha256(b"theirs").hexdigest(), size=6, suffix=".mp4")
    assert (await store.local(copied)).read_bytes() == b"theirs"
    assert (await store.local(moved)).read_bytes() == b"ours"
    assert theirs.exists()
    assert not ours.exists()
    folder.rmdir()
    assert list(shared.scratch.iterdir()) == []


@pytest.mark.parametrize("size", [1, 300_000, 12_000_001])
async def test_what_one_machine_adds_every_other_can_read(shared: Shared, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "a.mp4").write_bytes(content)
    file = await shared.machine().add(tmp_path / "a.mp4")
    assert shared.files() == [file.name]
    path = await shared.machine().local(file)
    assert path.read_bytes() == content
    assert path.suffix == ".mp4"


async def test_the_same_bytes_added_fifty_times_at_once_are_stored_once(shared: Shared, tmp_path: Path) -> None:
    stores = [shared.machine() for _ in range(5)]
    (tmp_path / "a.bin").write_bytes(os.urandom(300_000))
    found = await asyncio.gather(*(stores[i % 5].add(tmp_path / "a.bin") for i in range(50)))
    assert len(set(found)) == 1
    assert shared.files() == [found[0].name]
    assert (await stores[0].local(found[0])).read_bytes() == (tmp_path / "a.bin").read_bytes()


async def test_a_missing_file_is_not_found_and_the_message_says_what_to_do(shared: Shared) -> None:
    file = MediaFile(sha256="0" * 64, size=3, suffix=".bin")
    with pytest.raises(NotFound, match=f"{file.name}; .+") as missing:
        await shared.machine().local(file)
    assert type(missing.value) is NotFound


async def test_a_file_that_was_cut_is_damaged_until_it_is_added_again(shared: Shared, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"abc")
    file = await shared.machine().add(tmp_path / "a.bin")
    shared.overwrite(file.name, b"ab")
    with pytest.raises(NotFound, match=r"is damaged: 2 bytes instead of 3; .*run the stage that wrote it again"):
        await shared.machine().local(file)
    await shared.machine().add(tmp_path / "a.bin")
    assert (await shared.machine().local(file)).read_bytes() == b"abc"


@pytest.mark.parametrize(("name", "content"), [("empty.mp4", b""), ("noname", b"x"), ("odd.m p", b"x")])
async def test_an_empty_file_or_an_odd_suffix_is_refused(shared: Shared, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Permanent):
        await shared.machine().add(tmp_path / name)
    assert shared.files() == []


async def test_a_removed_file_is_gone_for_all_and_removing_it_again_is_nothing(shared: Shared, tmp_path: Path) -> None:
    store, other = shared.machine(), shared.machine()
    (tmp_path / "a.bin").write_bytes(b"abc")
    (tmp_path / "b.bin").write_bytes(b"bcd")
    gone, stays = await store.add(tmp_path / "a.bin"), await store.add(tmp_path / "b.bin")
    await store.remove(gone)
    await other.remove(gone)
    await store.remove(gone)
    assert shared.files() == [stays.name]
    for machine in (store, other):
        with pytest.raises(NotFound):
            await machine.local(gone)
        assert (await machine.local(stays)).read_bytes() == b"bcd"
    assert await store.add(tmp_path / "a.bin") == gone
    assert (await other.local(gone)).read_bytes() == b"abc"


async def test_scratch_folders_are_fresh(shared: Shared) -> None:
    store = shared.machine()
    folders = {store.scratch(), store.scratch(), shared.machine().scratch()}
    assert len(folders) == 3
    assert all(not list(folder.iterdir()) for folder in folders)


async def test_paths_for_one_file_are_free_and_a_file_there_is_moved_in(shared: Shared) -> None:
    store = shared.machine()
    path, other = store.scratch_file(".mp4"), store.scratch_file(".mp4")
    assert (path == other, path.exists(), path.suffix) == (False, False, ".mp4")
    path.write_bytes(b"video")
    made = await store.add(path)
    assert (path.exists(), made.suffix, made.size) == (False, ".mp4", 5)


async def test_bytes_that_are_added_during_their_cleaning_are_there_afterwards(
    shared: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cleaning judged an old file; before it deletes, another video's stage adds the same bytes and finds them there."""
    (tmp_path / "a.mp4").write_bytes(b"the same video")
    cleaner, maker = shared.machine(), shared.machine()
    file = await cleaner.add(tmp_path / "a.mp4")
    _age(cleaner, shared, file)
    assert await maker.add(tmp_path / "a.mp4") == file
    await cleaner.remove(file, unused_seconds=3_600)
    assert shared.files() == [file.name]
    # The same between the look at its age and the deletion.
    _age(cleaner, shared, file)
    adding: list[asyncio.Task[MediaFile]] = []
    if isinstance(cleaner, FolderStore):
        late = iter([False])
        judge = files_module._added_within

        def judged(path: Path, seconds: float) -> bool:
            found = judge(path, seconds)
            if next(late, True) is False:
                FolderStore(shared.kept)._add(tmp_path / "a.mp4")
            return found

        monkeypatch.setattr(files_module, "_added_within", judged)
    else:
        delete = Bucket.delete

        async def deleted(bucket: Bucket, name: str) -> None:
            if not adding:
                adding.append(asyncio.create_task(maker.add(tmp_path / "a.mp4")))
                await asyncio.sleep(0.5)
            await delete(bucket, name)

        monkeypatch.setattr(Bucket, "delete", deleted)
    await cleaner.remove(file, unused_seconds=3_600)
    await asyncio.gather(*adding)
    assert shared.files() == [file.name]
    assert await shared.machine().local(file)


async def test_a_mark_stays_when_a_deletion_got_no_answer_and_an_old_mark_delays_nothing(
    shared: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store may still carry that deletion out, so an `add` must go on waiting for it."""
    (tmp_path / "a.mp4").write_bytes(b"a video")
    cleaner, maker = shared.machine(), shared.machine()
    if isinstance(cleaner, FolderStore):
        pytest.skip("a folder has no marks")
    file = await cleaner.add(tmp_path / "a.mp4")
    _age(cleaner, shared, file)

    async def unanswered(_: Bucket, name: str) -> None:
        raise Transient(f"no answer about {name}", provider="media", code="timeout")

    with monkeypatch.context() as patched:
        patched.setattr(Bucket, "delete", unanswered)
        with pytest.raises(Transient, match="no answer"):
            await cleaner.remove(file, unused_seconds=3_600)
    mark = shared.kept / "going" / file.name
    assert mark.exists()
    adding = asyncio.create_task(maker.add(tmp_path / "a.mp4"))
    await asyncio.sleep(0.5)
    assert not adding.done()
    long_ago = time.time() - 3_600
    os.utime(mark, (long_ago, long_ago))
    assert await adding == file


async def test_old_bytes_are_removed_and_recently_added_ones_stay(shared: Shared, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"a video")
    store = shared.machine()
    file = await store.add(tmp_path / "a.mp4")
    assert await store.remove(file, unused_seconds=3_600) is False
    _age(store, shared, file)
    assert await store.remove(file, unused_seconds=3_600) is True
    assert shared.files() == []


def _age(store: MediaStore, shared: Shared, file: MediaFile) -> None:
    """Let the file be a day old. Both stores keep files in a folder here."""
    long_ago = time.time() - 86_400
    os.utime(shared.kept / file.name, (long_ago, long_ago))
