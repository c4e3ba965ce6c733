"""A full disk, a missing mount, a dead NFS server: videos wait behind one breaker that says why, and continue by themselves."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from phantoms_dagster.domain.claims import Result, StageResult, StageTask
from phantoms_dagster.domain.errors import MediaAway, NotFound, NotYet, Permanent, Transient
from phantoms_dagster.domain.models import MediaFile, VoiceoverOutput
from phantoms_dagster.domain.retry import RetryPolicy
from phantoms_dagster.domain.stages import stage
from phantoms_dagster.media import disk as disk_module
from phantoms_dagster.media import ffmpeg
from phantoms_dagster.media.disk import MARKER, Disk
from phantoms_dagster.media.files import FolderStore
from phantoms_dagster.media.studio import FfmpegStudio
from phantoms_dagster.production.alerts import AlertReading, BreakerAlert, deliver
from phantoms_dagster.production.runner import StageRunner
from phantoms_dagster.production.stages.rendered_video import scratch_file
from phantoms_dagster.settings import Settings, grouped
from phantoms_dagster.store.kept_files import files_are_known, files_were_stored
from phantoms_dagster.wiring import media_gate as media_gate_module
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster.wiring.limits import limits_of
from phantoms_dagster.wiring.media_gate import GatedUseCase, MediaGate, media_disk, media_gate
from phantoms_dagster_tests.integration.stage_world import SENSOR, World, open_world, output_of

SIZE = 600_000
RESET_SECONDS = 0.3


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "mnt"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=False, capture_output=True).returncode:
        pytest.skip("this system does not let root mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def grow(folder: Path) -> None:
    """Make room on the disk."""
    subprocess.run(["mount", "-o", "remount,size=20m", str(folder)], check=True)


def settings_for(media: Path, redis_url: str, **more: object) -> Settings:
    given = {"media": media, "redis_url": redis_url, "breaker_reset_seconds": RESET_SECONDS}
    return Settings(**grouped({**given, **more}))


@asynccontextmanager
async def gate_of(world: World, settings: Settings) -> AsyncIterator[MediaGate]:
    async with media_gate(settings, SystemClock(), lambda: files_are_known(world.async_engine)) as gate:
        yield gate


class Speak:
    """A use case that writes a file into scratch and stores it, as all of ours do."""

    def __init__(self, root: Path) -> None:
        self.store = FolderStore(root)
        self.tries = 0
        self.size = SIZE

    async def __call__(self, task: StageTask) -> StageResult:
        self.tries += 1
        with scratch_file(self.store, ".wav") as chosen:
            path = chosen()
            path.write_bytes(task.video.key.encode().ljust(self.size, b"\1"))
            audio = await self.store.add(path)
        output = output_of("voiceover")
        assert isinstance(output, VoiceoverOutput)
        return StageResult(output.model_copy(update={"audio": audio}))


def runner(world: World, gate: MediaGate, speak: Speak) -> StageRunner:
    return StageRunner(
        store=world.store(),
        use_cases={"voiceover": GatedUseCase(gate, speak, writing=True)},
        clock=SystemClock(),
        policy=RetryPolicy(attempts=1, max_wait_seconds=0),
        random=lambda: 1.0,
        new_owner=lambda: "runner",
        in_flight=1,
        heartbeat_seconds=20,
    )


async def run(world: World, settings: Settings, speak: Speak, keys: list[str]) -> list[Result]:
    async with gate_of(world, settings) as gate:
        return await runner(world, gate, speak).run(stage("voiceover"), keys, SENSOR)


async def run_until_done(world: World, settings: Settings, speak: Speak, keys: list[str]) -> None:
    for _ in range(1_200):
        world.write("UPDATE phantoms.stages SET retry_at = clock_timestamp() WHERE state = 'deferred'")
        if {r.outcome for r in await run(world, settings, speak, keys)} == {"done"}:
            return
        await asyncio.sleep(0.05)
    pytest.fail("they never went on")


async def openings(settings: Settings) -> list[BreakerAlert]:
    async with limits_of(settings, SystemClock()) as limits:
        news = []
        for state in await limits.breakers.look():
            changes = reversed(await limits.breakers.history(state.name))
            news.append(BreakerAlert(state.name, state.state, tuple((c.at, c.why) for c in changes if c.old == "closed")))
        return news


async def test_one_look_at_the_folder_serves_many_videos_and_trouble_makes_the_next_video_look_again(
    world: World, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each video looked at the folder, in a thread of its own."""
    looks: list[bool] = []
    there = Disk.is_there

    def look(disk: Disk) -> bool:
        looks.append(True)
        return there(disk)

    monkeypatch.setattr(Disk, "is_there", look)
    monkeypatch.setattr(media_gate_module, "_LOOKED_AT_SECONDS", 3_600.0)
    async with gate_of(world, settings_for(tmp_path / "media", redis_url)) as gate:
        async with gate(writing=True):  # the first one makes the folder
            looks.clear()
        for _ in range(5):
            async with gate(writing=True):
                pass
        assert looks == []
        with pytest.raises(MediaAway):
            async with gate(writing=True):
                raise OSError(errno.ENOSPC, "No space left on device")
        looks.clear()
        await gate._identify()
    assert looks


async def test_a_full_disk_makes_videos_wait_behind_one_breaker_and_one_alert_says_why(
    world: World, redis_url: str, small_disk: Path
) -> None:
    settings = settings_for(small_disk / "media", redis_url)
    speak = Speak(small_disk / "media")
    keys = world.add(8)
    await world.carry(keys, "script")
    outcomes = [r.outcome for r in await run(world, settings, speak, keys)]
    assert outcomes.count("done") == 3, "as many as fit"
    assert outcomes.count("deferred") == 5
    assert speak.tries == 4, "one found out, the others were not tried"
    assert [world.letters(key) for key in keys] == [[]] * 8
    assert {world.row(key, "voiceover")["attempts"] for key in keys} == {0}
    assert [a["state"] for key in keys for a in world.attempts(key, "voiceover")] == ["done"] * 3, "no rows for those who wait"
    media = small_disk / "media"
    kept = [p for p in media.rglob("*") if p.is_file() and p.name != MARKER]
    assert {p.stat().st_size for p in kept} == {SIZE}, "nothing that is cut counts as stored"

    news = [b for b in await openings(settings) if b.opened]
    assert [b.name for b in news] == ["media_space"]
    (opening,) = news[0].opened
    assert opening[1].startswith(f"the media folder {media} is full: ")
    assert opening[1].endswith(" bytes free")
    sent: list[str] = []
    now = datetime.now(UTC)
    delivery = deliver({}, AlertReading(now, (), tuple(news)), {"x": lambda m: sent.append(m.body)}, now=now, pause=timedelta(0))
    again = AlertReading(now, (), tuple(b for b in await openings(settings) if b.opened))
    deliver(delivery.told, again, {"x": lambda m: sent.append(m.body)}, now=now, pause=timedelta(0))
    assert len(sent) == 1
    assert f"the media folder {media} is full" in sent[0]

    grow(small_disk)
    await run_until_done(world, settings, speak, keys)
    assert {b.name: b.state for b in await openings(settings)}["media_space"] == "closed"


async def test_posting_goes_on_while_nothing_can_be_written(world: World, redis_url: str, tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "media", redis_url)
    async with gate_of(world, settings) as gate:
        with pytest.raises(MediaAway):
            async with gate(writing=True):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with pytest.raises(NotYet, match="media_space"):
            async with gate(writing=True):
                pytest.fail("nobody is let through")
        async with gate(writing=False):
            pass


async def test_a_folder_that_is_not_mounted_is_waited_for_and_nothing_is_written_into_the_mount_point(
    world: World, redis_url: str, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path / "mnt" / "media", redis_url)
    speak = Speak(tmp_path / "mnt" / "media")
    keys = world.add(3)
    await world.carry(keys, "script")
    assert [r.outcome for r in await run(world, settings, speak, keys[:1])] == ["done"]
    assert (tmp_path / "mnt" / "media" / MARKER).exists()
    (tmp_path / "mnt").rename(tmp_path / "away")
    (tmp_path / "mnt").mkdir()

    results = await run(world, settings, speak, keys[1:])
    assert [r.outcome for r in results] == ["deferred", "deferred"]
    assert "is not mounted" in results[0].message
    assert list((tmp_path / "mnt").iterdir()) == []
    with pytest.raises(MediaAway, match="is not mounted"):
        media_disk(settings).identify(known=files_were_stored(world.engine))
    assert next(b.opened[0][1] for b in await openings(settings) if b.opened).startswith("the media folder")

    (tmp_path / "mnt").rmdir()
    (tmp_path / "away").rename(tmp_path / "mnt")
    await run_until_done(world, settings, speak, keys[1:])
    assert [world.letters(key) for key in keys] == [[]] * 3


async def test_a_file_that_is_missing_in_a_mounted_folder_is_missing(world: World, redis_url: str, tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "media", redis_url)
    missing = MediaFile(sha256="0" * 64, size=1, suffix=".mp4")
    async with gate_of(world, settings) as gate:
        with pytest.raises(NotFound):
            async with gate(writing=False):
                await FolderStore(tmp_path / "media").local(missing)
        (tmp_path / "media" / MARKER).unlink()
        with pytest.raises(MediaAway, match="not mounted"):
            async with gate(writing=False):
                await FolderStore(tmp_path / "media").local(missing)


def test_a_folder_of_an_earlier_version_gets_its_marker(tmp_path: Path) -> None:
    (tmp_path / "ab" / "cd").mkdir(parents=True)
    disk = Disk(tmp_path, what="media folder", marked=True)
    disk.identify(known=True)
    assert disk.is_there()


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOTCONN])
async def test_a_failing_folder_is_waited_for_and_a_failing_file_is_not(
    world: World, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    settings = settings_for(tmp_path / "media", redis_url)

    def broken(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    async with gate_of(world, settings) as gate:
        with pytest.raises(Transient, match=os.strerror(number)):
            async with gate(writing=True):
                broken()
        with monkeypatch.context() as patched:
            patched.setattr(disk_module, "_try_reading", broken)
            with pytest.raises(MediaAway, match=os.strerror(number)):
                async with gate(writing=True):
                    broken()
            await asyncio.sleep(RESET_SECONDS + 0.1)
            with pytest.raises(NotYet):
                async with gate(writing=False):
                    pytest.fail("nobody is let through")
        assert await _in_the_end(gate)


async def _in_the_end(gate: MediaGate) -> bool:
    for _ in range(1_200):
        try:
            async with gate(writing=True):
                return True
        except NotYet:
            await asyncio.sleep(0.05)
    return False


async def test_a_read_only_folder_and_a_used_up_quota_are_waited_for(world: World, redis_url: str, tmp_path: Path) -> None:
    for number, words in ((errno.EROFS, "read-only"), (errno.EDQUOT, "quota")):
        complaint = Disk(tmp_path, what="media folder", marked=False).diagnose(OSError(number, os.strerror(number)))
        assert complaint is not None
        assert words in str(complaint)


async def test_without_redis_a_process_remembers_by_itself(world: World, tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "media", "redis://127.0.0.1:1/0")
    async with gate_of(world, settings) as gate:
        async with gate(writing=True):
            pass
        with pytest.raises(MediaAway):
            async with gate(writing=True):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with pytest.raises(NotYet):
            async with gate(writing=True):
                pytest.fail("nobody is let through")
        assert await _in_the_end(gate)


async def test_an_ffmpeg_that_found_no_room_is_recognised(small_disk: Path, tmp_path: Path) -> None:
    source = tmp_path / "long.mp4"
    noise = ["-f", "lavfi", "-i", "nullsrc=s=640x360:r=30,noise=alls=100:allf=t,trim=duration=4", "-c:v", "libx264", "-qp", "5"]
    await ffmpeg.run([*noise, "-preset", "ultrafast", str(source)])
    assert source.stat().st_size > 3_000_000
    disk = Disk(small_disk, what="media folder", marked=False)
    with pytest.raises((Transient, Permanent)) as stopped:
        await ffmpeg.run(["-i", str(source), "-c", "copy", "-f", "mp4", str(small_disk / "copy.mp4")])
    complaint = disk.diagnose(stopped.value)
    assert complaint is not None
    assert "is full" in str(complaint)
    shutil.rmtree(small_disk / "copy.mp4", ignore_errors=True)
    (small_disk / "copy.mp4").unlink(missing_ok=True)
    with pytest.raises(Permanent) as refused:
        await FfmpegStudio().probe(tmp_path / "conftest.py")
    assert disk.diagnose(refused.value) is None, "what is no video is not the disk's fault"


async def test_a_full_disk_of_temporary_files_is_named_and_not_taken_for_the_media_folder(
    world: World, redis_url: str, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(small_disk))
    (tmp_path / "media").mkdir()
    disk = Disk(tmp_path / "media", what="media folder", marked=False)
    disk.check_usable(writing=True)
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "fonts.ttf").write_bytes(b"\1" * 3_000_000)
    for error in (
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        Transient("no room", provider="media", code=disk_module.FULL_CODE),
    ):
        complaint = disk.diagnose(error)
        assert complaint is not None
        assert str(complaint).startswith(f"the folder for temporary files (TMPDIR) {small_disk} is full: ")

    settings = settings_for(tmp_path / "media", redis_url)
    async with gate_of(world, settings) as gate:
        with pytest.raises(MediaAway, match="TMPDIR"):
            async with gate(writing=True):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        await asyncio.sleep(RESET_SECONDS * 1.5)
        with pytest.raises(NotYet):  # the one that tries finds it full still, and no video pays for that
            async with gate(writing=True):
                pytest.fail("nobody is let through")
        grow(small_disk)
        assert await _in_the_end(gate)
