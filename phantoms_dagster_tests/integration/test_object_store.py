"""Media in a bucket behind a real S3 server: the cache, broken lines, killed processes, a server that is gone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import obstore
import pytest

from phantoms_dagster.domain.errors import InvalidInput, MediaAway, NotFound, NotYet, Permanent, Transient
from phantoms_dagster.domain.models import MediaFile
from phantoms_dagster.domain.ports import MediaStore
from phantoms_dagster.media.cache import Cache
from phantoms_dagster.media.files import FolderStore
from phantoms_dagster.media.object_store import client as s3
from phantoms_dagster.media.object_store.client import Bucket
from phantoms_dagster.media.object_store.store import ObjectStore
from phantoms_dagster.providers.redaction import redact
from phantoms_dagster.resilience.breakers.breaker import BreakerOpen
from phantoms_dagster.settings import Settings, grouped
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster.wiring.limits import limits_of
from phantoms_dagster.wiring.media import MediaFiles, media_store, probe
from phantoms_dagster.wiring.object_store_guard import guarded_media
from phantoms_dagster_tests.s3_server import BUCKET, KEY_ID, SECRET, Line, S3Server, line_to, s3_server

MB = 10**6


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def server(running: S3Server) -> S3Server:
    """The server, running again should a test have stopped it."""
    if not running.running:
        running.start()
    return running


@pytest.fixture
async def line(server: S3Server) -> AsyncIterator[Line]:
    async with line_to(server) as line:
        yield line


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith(("AWS_", "PHANTOMS_"))]:
        monkeypatch.delenv(name)


def store_on(folder: Path, url: str, *, most: int = 1000 * MB, secret: str = SECRET, bucket: str = BUCKET) -> ObjectStore:
    """One machine's store, its cache in `folder`."""
    place = Bucket(f"s3://{bucket}/{folder.parent.name}", endpoint_url=url, access_key_id=KEY_ID, secret_access_key=secret)
    return ObjectStore(place, Cache(folder, most))


def a_file(folder: Path, size: int, name: str = "a.mp4") -> Path:
    path = folder / name
    path.write_bytes(os.urandom(size))
    return path


def cached(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.glob("??/*"))


# --- what is asked of the server


async def test_bytes_that_are_there_already_are_not_sent_again(tmp_path: Path, line: Line) -> None:
    source = a_file(tmp_path, 100_000)
    await store_on(tmp_path / "one", line.url).add(source)
    assert [request.split()[0] for request in line.requests] == ["HEAD", "PUT", "HEAD", "HEAD"]
    line.requests.clear()
    await store_on(tmp_path / "two", line.url).add(source)
    assert [request.split()[0] for request in line.requests] == ["HEAD", "HEAD", "HEAD"]


async def test_a_file_that_many_want_at_once_comes_down_once(tmp_path: Path, line: Line) -> None:
    file = await store_on(tmp_path / "one", line.url).add(a_file(tmp_path, 2 * MB))
    other = store_on(tmp_path / "two", line.url)
    line.requests.clear()
    paths = await asyncio.gather(*(other.local(file) for _ in range(30)))
    assert [request.split()[0] for request in line.requests] == ["GET"]
    assert len(set(paths)) == 30, "each has it for as long as it needs it"
    assert cached(tmp_path / "two") == [file.name]


async def test_what_a_machine_has_seen_it_has_without_the_server(tmp_path: Path, server: S3Server) -> None:
    file = await store_on(tmp_path / "one", server.url).add(a_file(tmp_path, 1000))
    await store_on(tmp_path / "two", server.url).local(file)
    server.stop()
    for name in ("one", "two"):
        assert (await store_on(tmp_path / name, server.url).local(file)).stat().st_size == 1000


# --- lines that break


async def test_a_download_that_was_cut_is_taken_up_where_it_broke(tmp_path: Path, line: Line) -> None:
    source = a_file(tmp_path, 6 * MB)
    file = await store_on(tmp_path / "one", line.url).add(source)
    line.cut_after, line.cuts = 2 * MB, 1
    assert (await store_on(tmp_path / "two", line.url).local(file)).read_bytes() == source.read_bytes()
    assert line.cuts == 0


async def test_a_download_that_is_cut_again_and_again_is_tried_later_and_leaves_nothing(tmp_path: Path, line: Line) -> None:
    file = await store_on(tmp_path / "one", line.url).add(a_file(tmp_path, 6 * MB))
    line.cut_after = 1000
    other = store_on(tmp_path / "two", line.url)
    with pytest.raises(Transient, match="does not answer"):
        await other.local(file)
    assert cached(tmp_path / "two") == []
    assert list((tmp_path / "two" / "scratch").iterdir()) == []
    line.cut_after = None
    assert (await other.local(file)).stat().st_size == 6 * MB


async def test_an_object_with_other_bytes_of_the_same_size_is_damaged(tmp_path: Path, server: S3Server) -> None:
    file = await store_on(tmp_path / "one", server.url).add(a_file(tmp_path, 1000))
    obstore.put(server.client(tmp_path.name), file.name, os.urandom(1000))
    with pytest.raises(NotFound, match="is damaged: other bytes of the same size; delete it"):
        await store_on(tmp_path / "two", server.url).local(file)
    assert cached(tmp_path / "two") == []


@pytest.mark.parametrize("size", [4 * MB, 30 * MB])
async def test_a_process_that_is_killed_in_mid_upload_leaves_nothing_to_be_seen(
    tmp_path: Path, line: Line, server: S3Server, size: int
) -> None:
    """Once as one request, once in parts."""
    source = a_file(tmp_path, size)
    line.hold_after = size // 2
    code = f"""
import asyncio
from pathlib import Path
from phantoms_dagster_tests.integration.test_object_store import store_on
asyncio.run(store_on(Path({str(tmp_path / "one")!r}), {line.url!r}).add(Path({str(source)!r})))
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    try:
        await line.held.wait()
    finally:
        process.kill()
        await process.wait()
    line.hold_after = None
    assert [name for name in server.objects() if tmp_path.name in name] == []
    other = store_on(tmp_path / "two", line.url)
    file = MediaFile(sha256="0" * 64, size=size, suffix=".mp4")
    with pytest.raises(NotFound):
        await other.local(file)
    file = await other.add(source)
    assert (await store_on(tmp_path / "three", line.url).local(file)).read_bytes() == source.read_bytes()


async def test_a_cancelled_upload_is_not_seen_and_the_next_one_succeeds(tmp_path: Path, line: Line, server: S3Server) -> None:
    source, store = a_file(tmp_path, 12 * MB), store_on(tmp_path / "one", line.url)
    line.hold_after = 3 * MB
    adding = asyncio.create_task(store.add(source))
    await line.held.wait()
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    assert [name for name in server.objects() if tmp_path.name in name] == []
    line.hold_after = None
    file = await store.add(source)
    assert (await store_on(tmp_path / "two", line.url).local(file)).read_bytes() == source.read_bytes()


# --- servers that refuse or are gone


async def test_a_server_that_is_down_is_transient_and_says_where_to_look(tmp_path: Path, server: S3Server) -> None:
    file = await store_on(tmp_path / "one", server.url).add(a_file(tmp_path, 1000))
    server.stop()
    other = store_on(tmp_path / "two", server.url)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: other.add(a_file(tmp_path, 10, "b.mp4")),
        lambda: other.local(file),
        lambda: other.remove(file),
    ]
    for call in calls:
        with pytest.raises(Transient, match=r"does not answer.*PHANTOMS_MEDIA_ENDPOINT_URL") as refused:
            await call()
        assert type(refused.value) is Transient
    server.start()
    assert (await other.local(file)).stat().st_size == 1000


async def test_a_server_that_says_nothing_is_given_up(tmp_path: Path, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_SILENCE_SECONDS", 0.2)
    line.hold_after = 0
    with pytest.raises(Transient, match="does not answer"):
        await store_on(tmp_path / "one", line.url).add(a_file(tmp_path, 1000))


async def test_wrong_keys_are_permanent_say_what_to_do_and_do_not_show_the_secret(tmp_path: Path, server: S3Server) -> None:
    file = await store_on(tmp_path / "one", server.url).add(a_file(tmp_path, 1000))
    wrong = store_on(tmp_path / "two", server.url, secret="not/the+secret")
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: wrong.add(a_file(tmp_path, 10, "b.mp4")),
        lambda: wrong.local(file),
        lambda: wrong.remove(file),
    ]
    for call in calls:
        with pytest.raises(Permanent, match="PHANTOMS_MEDIA_SECRET_ACCESS_KEY") as refused:
            await call()
        assert refused.value.code == "SignatureDoesNotMatch"
        assert refused.value.evidence.status == 403
        shown = f"{refused.value!r} {refused.value} {refused.value.evidence!r} {refused.value.__context__!r}"
        assert "not/the+secret" not in shown
        assert KEY_ID not in shown


async def test_a_bucket_that_is_not_there_is_permanent(tmp_path: Path, server: S3Server) -> None:
    store = store_on(tmp_path / "one", server.url, bucket="nobodys-bucket")
    for call in (store.add(a_file(tmp_path, 10)), store.local(MediaFile(sha256="0" * 64, size=1, suffix=".mp4"))):
        with pytest.raises(Permanent, match=r"NoSuchBucket.*create the bucket, or correct PHANTOMS_MEDIA_URL"):
            await call


# --- the cache


async def test_the_cache_drops_what_was_not_asked_for_the_longest(tmp_path: Path, server: S3Server) -> None:
    store = store_on(tmp_path / "one", server.url, most=MB)
    files = []
    for n in range(3):
        files.append(await store.add(a_file(tmp_path, 300_000, f"{n}.mp4")))
    kept = tmp_path / "one"
    for age, file in zip((300, 200, 100), files, strict=True):
        long_ago = datetime.now(UTC).timestamp() - age
        os.utime(kept / file.name, (long_ago, long_ago))
    await asyncio.create_task(store.local(files[0]))
    await asyncio.sleep(0)  # it lets go after we were woken
    newest = await store.add(a_file(tmp_path, 300_000, "3.mp4"))
    assert cached(kept) == sorted(file.name for file in (files[0], files[2], newest))
    assert (await store.local(files[1])).stat().st_size == 300_000, "it comes from the bucket again"


async def test_a_file_in_use_stays_whatever_the_bound_says_until_its_task_ends(tmp_path: Path, server: S3Server) -> None:
    store, over = store_on(tmp_path / "one", server.url, most=MB), asyncio.Event()
    source = a_file(tmp_path, 700_000)
    file = await store.add(source)
    path: asyncio.Future[Path] = asyncio.get_running_loop().create_future()

    async def use() -> bytes:
        path.set_result(await store.local(file))
        await over.wait()
        return (await path).read_bytes()

    using = asyncio.create_task(use())
    await path
    # Another process of the same machine needs room.
    neighbour = store_on(tmp_path / "one", server.url, most=MB)
    for n in range(4):
        await neighbour.add(a_file(tmp_path, 400_000, f"{n}.mp4"))
    assert file.name in cached(tmp_path / "one")
    await neighbour.remove(file)
    over.set()
    assert await using == source.read_bytes(), "even a removed file is there for who holds it"
    assert not (await path).exists()
    assert file.name not in cached(tmp_path / "one")


def test_what_a_killed_process_held_is_free_again(tmp_path: Path, server: S3Server) -> None:
    file = asyncio.run(store_on(tmp_path / "one", server.url).add(a_file(tmp_path, 1000)))
    code = f"""
import asyncio, os, signal
from pathlib import Path
from phantoms_dagster.domain.models import MediaFile
from phantoms_dagster_tests.integration.test_object_store import store_on
async def main():
    store = store_on(Path({str(tmp_path / "one")!r}), {server.url!r})
    print(await store.local(MediaFile.model_validate_json({file.model_dump_json()!r})))
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-u", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    held, kept = Path(done.stdout.strip()), tmp_path / "one" / file.name
    assert held.exists(), done.stderr
    assert kept.stat().st_nlink == 2
    asyncio.run(store_on(tmp_path / "one", server.url).local(file))
    assert not held.parent.exists()
    assert kept.stat().st_nlink == 1


def test_a_process_forked_from_one_that_used_the_store_says_so_instead_of_hanging(tmp_path: Path, server: S3Server) -> None:
    code = f"""
import asyncio, os
from pathlib import Path
from phantoms_dagster_tests.integration.test_object_store import store_on
def use(): return store_on(Path({str(tmp_path / "one")!r}), {server.url!r})
if FORK_FIRST: pid = os.fork()
else: use(); pid = os.fork()
if pid: raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
try: asyncio.run(use().add(Path({str(a_file(tmp_path, 10))!r})))
except RuntimeError as error: print(error); os._exit(3)
os._exit(0)
"""
    for fork_first, exit_code in ((True, 0), (False, 3)):
        command = [sys.executable, "-u", "-W", "ignore", "-c", code.replace("FORK_FIRST", str(fork_first))]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == exit_code, done.stderr
    assert "forked" in done.stdout


# --- wired up from settings


def settings_for(server: S3Server, home: Path, **more: object) -> Settings:
    given = {
        "home": home,
        "media_url": f"s3://{BUCKET}/{home.parent.name}/wired",
        "media_endpoint_url": server.url,
        "media_access_key_id": KEY_ID,
        "media_secret_access_key": SECRET,
    }
    return Settings(**grouped({**given, **more}))


async def test_while_the_store_is_down_stages_are_deferred_and_go_on_when_it_is_back(
    tmp_path: Path, server: S3Server, redis_url: str
) -> None:
    settings = settings_for(
        server, tmp_path / "home", redis_url=redis_url, breaker_minimum_calls=3, breaker_reset_seconds=0.5, max_wait_seconds=0
    )
    async with guarded_media(settings, SystemClock()) as store:
        seen = await store.add(a_file(tmp_path, 1000))
        server.stop()
        for n in range(2):
            with pytest.raises(Transient):
                await store.add(a_file(tmp_path, 1000, f"{n}.mp4"))
        with pytest.raises(NotYet, match="the breaker of media is open"):
            await store.add(a_file(tmp_path, 1000, "3.mp4"))
        assert (await store.local(seen)).stat().st_size == 1000, "what is here needs nobody's leave"
        server.start()
        for _ in range(1_200):
            try:
                await store.add(a_file(tmp_path, 1000, "4.mp4"))
                return
            except NotYet:
                await asyncio.sleep(0.05)
        pytest.fail("the breaker never closed")


async def test_behind_a_refused_key_everything_waits_and_the_breaker_says_why(
    tmp_path: Path, server: S3Server, redis_url: str
) -> None:
    settings = settings_for(
        server,
        tmp_path / "home",
        redis_url=redis_url,
        breaker_reset_seconds=60.0,
        media_secret_access_key="another+secret",
    )
    async with guarded_media(settings, SystemClock()) as store:
        with pytest.raises(MediaAway, match="SignatureDoesNotMatch"):
            await store.add(a_file(tmp_path, 10))
        for _ in range(3):
            with pytest.raises(BreakerOpen):
                await store.add(a_file(tmp_path, 10))
    async with limits_of(settings, SystemClock()) as limits:
        (opened,) = await limits.breakers.history("media")
    assert "PHANTOMS_MEDIA_SECRET_ACCESS_KEY" in opened.why


async def test_the_standard_variables_are_used_where_ours_are_unset(
    tmp_path: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    unset = {"media_endpoint_url": None, "media_access_key_id": None, "media_secret_access_key": None}
    await probe(settings_for(server, tmp_path / "home", **unset))
    # And ours win, whole: a session token of the environment belongs to the environment's key.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAANOTHER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "another")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    await probe(settings_for(server, tmp_path / "home"))


def test_half_a_pair_of_keys_is_refused(tmp_path: Path, server: S3Server) -> None:
    with pytest.raises(InvalidInput, match="both PHANTOMS_MEDIA_ACCESS_KEY_ID and PHANTOMS_MEDIA_SECRET_ACCESS_KEY"):
        media_store(settings_for(server, tmp_path, media_secret_access_key=None))


@pytest.mark.parametrize("where", ["folder", "bucket"])
async def test_the_probe_leaves_nothing_behind(tmp_path: Path, server: S3Server, where: str) -> None:
    home = tmp_path / "home"
    settings = settings_for(server, home) if where == "bucket" else Settings(paths={"home": home})
    place = await probe(settings)
    assert place == (settings.media.url if where == "bucket" else str(home / "media"))
    assert [name for name in server.objects() if tmp_path.name in name] == []
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_a_machine_shows_a_picture_that_another_one_made(tmp_path: Path, server: S3Server) -> None:
    source = a_file(tmp_path, 5000, "thumbnail.jpg")
    file = asyncio.run(media_store(settings_for(server, tmp_path / "one")).add(source))
    media_files = MediaFiles(settings_for(server, tmp_path / "two", media_url=f"s3://{BUCKET}/{tmp_path.name}/wired"))
    assert media_files.bytes_of(file) == source.read_bytes()
    assert media_files.address(file) == f"s3://{BUCKET}/{tmp_path.name}/wired/{file.name}"
    assert media_files.bytes_of(file.model_copy(update={"sha256": "0" * 64})) is None


def test_a_store_that_is_away_is_asked_for_pictures_once(
    tmp_path: Path, server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.stop()
    media_files = MediaFiles(settings_for(server, tmp_path / "one"))
    file = MediaFile(sha256="0" * 64, size=1, suffix=".jpg")
    assert [media_files.bytes_of(file) for _ in range(50)] == [None] * 50
    assert len(caplog.records) == 1
    assert "does not answer" in caplog.text


async def test_anybody_can_fetch_a_file_from_its_signed_address_and_from_no_other(tmp_path: Path, server: S3Server) -> None:
    """Instagram fetches videos from such addresses."""
    source = a_file(tmp_path, 5000, "reel.mp4")
    store = media_store(settings_for(server, tmp_path / "one"))
    file = await store.add(source)
    address = await store.public_url(file, timedelta(hours=6))
    assert address is not None
    async with httpx.AsyncClient() as client:
        assert (await client.get(address)).content == source.read_bytes()
        assert (await client.get(address.split("?")[0])).status_code in (400, 403)  # S3 answers 403, rclone 400
        wrong = address[:-4] + ("0000" if address[-4:] != "0000" else "1111")
        assert (await client.get(wrong)).status_code == 403
    assert "X-Amz-Expires=21600" in address
    assert redact(address).endswith("X-Amz-Signature=***")
    folder: MediaStore = FolderStore(tmp_path / "folder")
    assert await folder.public_url(file, timedelta(hours=6)) is None
