"""The stand-ins of TikTok and Instagram refuse the videos that the platforms refuse, and enforce their rates."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from phantoms_dagster.sandbox import uploaded_videos
from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster.sandbox.mp4 import mp4_seconds
from phantoms_dagster_tests.contract.test_instagram import Stand, standing
from phantoms_dagster_tests.contract.test_instagram_sandbox import Api
from phantoms_dagster_tests.contract.tiktok_world import World, a_world
from phantoms_dagster_tests.made_videos import video_bytes

TOKEN = {"Authorization": "Bearer sandbox-ocean_facts"}
GOOD: dict[str, Any] = {}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as made:
        made.sandbox.config.clear()  # as the sandbox is by default
        yield made


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with standing() as made:
        yield made


async def opened(world: World, size: int) -> httpx.Response:
    info = {"privacy_level": "SELF_ONLY", "title": "x", "brand_content_toggle": False, "brand_organic_toggle": False}
    source = {"source": "FILE_UPLOAD", "video_size": size, "chunk_size": size, "total_chunk_count": 1}
    if size >= 5_000_000:
        source |= {"chunk_size": 5_000_000, "total_chunk_count": size // 5_000_000}
    url = f"{world.base_url}/v2/post/publish/video/init/"
    return await world.client.post(url, json={"post_info": info, "source_info": source}, headers=TOKEN)


async def ended(world: World, content: bytes) -> dict[str, Any]:
    """Upload it to TikTok in chunks; what status/fetch says once it is processed."""
    data = (await opened(world, len(content))).json()["data"]
    count = max(1, len(content) // 5_000_000)
    for number in range(count):
        first, end = number * 5_000_000, len(content) if number == count - 1 else (number + 1) * 5_000_000
        headers = {"Content-Type": "video/mp4", "Content-Range": f"bytes {first}-{end - 1}/{len(content)}"}
        assert (await world.client.put(data["upload_url"], content=content[first:end], headers=headers)).status_code < 300
    world.sandbox.advance(1)
    url = f"{world.base_url}/v2/post/publish/status/fetch/"
    answer = await world.client.post(url, json={"publish_id": data["publish_id"]}, headers=TOKEN)
    said: dict[str, Any] = answer.json()["data"]
    return said


@pytest.mark.parametrize(
    "facts",
    [
        GOOD,
        {"moov_first": False},
        {"delayed": 0.5},
        {"container": "mov"},
        {"container": "webm", "codec": "libvpx"},
        {"fps": 23.976},
        {"fps": 60, "seconds": 10},
        {"seconds": 600, "fps": 24},
    ],
    ids=str,
)
async def test_tiktok_takes_every_video_within_its_limits(world: World, facts: dict[str, Any]) -> None:
    assert (await ended(world, video_bytes(**facts)))["status"] == "PUBLISH_COMPLETE"
    assert len(world.posts) == 1


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"codec": "mpeg4"}, "file_format_check_failed"),
        ({"container": "mkv"}, "file_format_check_failed"),
        ({"seconds": 601, "fps": 24}, "duration_check_failed"),
        ({"fps": 22.5}, "frame_rate_check_failed"),
        ({"fps": 61}, "frame_rate_check_failed"),
        ({"width": 358}, "picture_size_check_failed"),
        ({"height": 4098, "seconds": 1}, "picture_size_check_failed"),
    ],
    ids=str,
)
async def test_tiktok_says_which_limit_a_video_breaks_and_posts_nothing(world: World, facts: dict[str, Any], reason: str) -> None:
    said = await ended(world, video_bytes(**facts))
    assert (said["status"], said["fail_reason"]) == ("FAILED", reason)
    assert not world.posts


async def test_a_file_without_a_video_fails_tiktoks_format_check(world: World) -> None:
    for content in (b"no video at all", b"\0\0\0\x18ftypmp42" + bytes(300_000), video_bytes()[:-500_000][1_000:]):
        assert (await ended(world, content))["fail_reason"] == "file_format_check_failed"
    assert not world.posts


async def test_a_video_longer_than_its_creator_may_post_fails_the_duration_check(world: World) -> None:
    world.sandbox.config["tiktok.creator"] = {"max_video_post_duration_sec": 20}
    assert (await ended(world, video_bytes(seconds=21)))["fail_reason"] == "duration_check_failed"
    assert (await ended(world, video_bytes(seconds=20)))["status"] == "PUBLISH_COMPLETE"


async def test_tiktoks_limits_hold_unless_they_are_switched_off(world: World) -> None:
    codes = [(await opened(world, 9)).json()["error"]["code"] for _ in range(7)]
    assert codes == ["ok"] * 6 + ["rate_limit_exceeded"]
    world.sandbox.config["tiktok.rate_limits"] = False
    assert (await opened(world, 9)).status_code == 200


async def test_a_creator_may_post_fifteen_times_a_day_unless_that_is_switched_off(world: World) -> None:
    for _ in range(15):
        await ended(world, video_bytes(seconds=3))
        world.sandbox.advance(60)
    assert (await opened(world, 9)).json()["error"]["code"] == "spam_risk_too_many_posts"
    world.sandbox.config["tiktok.daily_posts"] = None
    assert (await opened(world, 9)).json()["error"]["code"] == "ok"


@pytest.mark.parametrize(
    "facts",
    [GOOD, {"container": "mov"}, {"fps": 23.976}, {"fps": 60, "seconds": 10}, {"seconds": 3}, {"audio_hz": 48_000}],
    ids=str,
)
async def test_instagram_takes_every_video_within_its_rules(stand: Stand, facts: dict[str, Any]) -> None:
    api = Api(stand)
    assert (await api.get(await api.finished(video_bytes(**facts)), fields="status_code"))["status_code"] == "FINISHED"


@pytest.mark.parametrize(
    "facts",
    [
        {"codec": "mpeg4"},
        {"container": "webm", "codec": "libvpx"},
        {"moov_first": False},
        {"delayed": 0.5},
        {"seconds": 2.5},
        {"seconds": 901, "fps": 24, "width": 64, "height": 114},
        {"fps": 22.5},
        {"fps": 61},
        {"width": 1922, "seconds": 4},
        {"pixel_format": "yuv444p"},
        {"audio_hz": 96_000},
    ],
    ids=str,
)
async def test_instagram_refuses_every_video_that_breaks_a_rule(stand: Stand, facts: dict[str, Any]) -> None:
    api = Api(stand)
    status = await api.get(await api.finished(video_bytes(**facts)), fields="status_code,status")
    assert (status["status_code"], status["status"][-7:]) == ("ERROR", "2207026")


@pytest.mark.parametrize("version", [0, 1])
def test_the_movie_header_of_both_versions_names_the_length(version: int) -> None:
    times, width = (8, 4) if version == 0 else (16, 8)
    header = b"mvhd" + bytes([version, 0, 0, 0]) + bytes(times) + (1_000).to_bytes(4, "big") + (601_500).to_bytes(width, "big")
    assert mp4_seconds(b"\0\0\0\x18ftypmp42" + header + bytes(100)) == 601.5


async def test_a_video_for_both_platforms_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real = uploaded_videos.read_video

    def counting(file: Any, size: int) -> uploaded_videos.VideoFacts | None:
        read.append(size)
        return real(file, size)

    monkeypatch.setattr(uploaded_videos, "read_video", counting)
    content, sandbox = video_bytes(), Sandbox(seed=1)
    for _ in range(2):
        intake = uploaded_videos.Intake()
        intake.write(0, content)
        seen = intake.video(sandbox, hashlib.sha256(content).hexdigest())
        intake.close()
        assert seen is not None
        assert (seen.container, seen.fps, seen.seconds) == ("mp4", 30.0, 30.0)
    assert read == [len(content)]
