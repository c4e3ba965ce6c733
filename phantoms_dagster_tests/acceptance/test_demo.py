"""`phantoms demo`, as a newcomer runs it: real servers, real renders, real posts to the sandbox, a real outage."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest

from phantoms_dagster.media.studio import FfmpegStudio
from phantoms_dagster_tests.acceptance.conftest import ANY_PORTS, wait_for
from phantoms_dagster_tests.terminal import terminal

DEMO = [sys.executable, "-W", "ignore", "-m", "phantoms_dagster.cli.main", "demo"]


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PHANTOMS_", "DAGSTER_"))}
    return {**kept, **ANY_PORTS}


def report_of(home: Path, *options: str) -> dict[str, Any]:
    command = [*DEMO, "--json", "--keep", str(home), *options]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=880)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["ok"] is True
    assert found["problems"] == []
    return found


def check_pictures(home: Path, videos: list[dict[str, Any]]) -> None:
    """The best frame of each video is a picture of the video's size that shows something, and the video is next to it."""
    for video in videos:
        picture, file = Path(video["frame"]["path"]), Path(video["film"])
        assert picture.parent == file.parent == home / "videos"
        assert picture.stem == file.stem == re.sub(r"[^a-z0-9]+", "-", video["title"].lower())
        assert picture.suffix == ".jpg"
        with av.open(str(picture)) as opened:
            [frame] = list(opened.decode(video=0))
            assert (frame.width, frame.height) == (1080, 1920)
            assert float(np.std(frame.to_ndarray(format="gray"))) > 10
        assert file.read_bytes() == Path(video["files"]["rendered_video"]).read_bytes()
        assert 0 <= video["frame"]["second"] < video["probe"]["seconds"]


def left_running(home: Path) -> list[str]:
    """The processes whose command or environment names the demo's directory."""
    mark, found = str(home).encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                content = (process / name).read_bytes()
            except OSError:
                continue
            if mark in content and int(process.name) != os.getpid():
                found.append(f"{process.name} {content[:200]!r}")
    return found


def check_files(video: dict[str, Any]) -> None:
    """The video and its variants can be played everywhere and are as loud as they should be."""
    for name in ("rendered_video", "youtube/variant", "tiktok/variant", "instagram/variant"):
        probe = asyncio.run(FfmpegStudio().probe(Path(video["files"][name]), loudness=True))
        assert (probe.width, probe.height, probe.fps) == (1080, 1920, 30)
        assert (probe.video_codec, probe.audio_codec, probe.moov_first) == ("h264", "aac", True)
        assert 15 <= probe.seconds <= 60
        assert probe.loudness_lufs is not None
        assert abs(probe.loudness_lufs + 14) <= 1


@pytest.mark.timeout(900)
def test_the_render_api_dies_in_mid_run_and_the_demo_loses_nothing_and_leaves_playable_files(tmp_path: Path) -> None:
    """Exit code 0 means that the sandbox's ledger holds exactly one post for every video and platform."""
    home = tmp_path / "demo"
    report = report_of(home, "--videos", "2", "--faults")
    outage = report["outage"]
    died, opened, lifted, closed = (datetime.fromisoformat(outage[f"{what}_at"]) for what in ("died", "opened", "lifted", "closed"))
    assert died < opened < closed
    assert died < lifted < closed
    assert (lifted - died).total_seconds() >= 20
    assert (outage["breaker"], outage["dead_letters"]) == ("sandbox/shotstack", 0)
    assert 1 <= outage["waited"] <= 2
    assert report["proof"]["post"] == {"wanted": 6, "found": 6, "doubled": 0, "lost": 0}
    assert report["proof"]["render"] == {"wanted": 2, "found": 2, "doubled": 0, "lost": 0}
    assert report["totals"]["posts"] == report["totals"]["ledger_posts"] == 6
    assert report["totals"]["views"] > 0
    assert report["costs"]["rendered_video"] > 0
    assert sum(report["costs"].values()) == pytest.approx(report["totals"]["cost_usd"], abs=1e-3)
    for video in report["videos"]:
        assert set(video["stages"].values()) == {"done"}
        assert sorted(post["platform"] for post in video["posts"]) == ["instagram", "tiktok", "youtube"]
    check_files(report["videos"][0])
    check_pictures(home, report["videos"])


@pytest.mark.timeout(900)
def test_with_review_a_person_decides_at_the_desk_and_the_demo_goes_on(tmp_path: Path) -> None:
    """One is approved for two platforms, one is rejected. The person only knows the address that the demo prints."""
    home = tmp_path / "demo"
    command = [*DEMO, "--json", "--keep", str(home), "--videos", "2", "--review"]
    with (tmp_path / "said.txt").open("w") as out:
        demo = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=out, text=True)
    try:
        address = wait_for(
            lambda: re.search(r"2 videos wait for you.*?\n\s*(http://\S+)", (tmp_path / "said.txt").read_text(), re.DOTALL)
        )
        with httpx.Client(timeout=30, trust_env=False, follow_redirects=True) as client:
            for form in (
                {"answer": "approve", "choose": "1", "only": ["youtube", "tiktok"]},
                {"answer": "reject", "note": "too long"},
            ):
                page = wait_for(lambda: 'name="content"' in (found := client.get(address[1])).text and found)
                given = {name: _hidden(page.text, name) for name in ("_csrf", "content")}
                [action] = set(re.findall(r'action="(/review/[^"]+/decide)"', page.text))
                assert client.post(str(page.url.join(action)), data={**given, **form}).status_code == 200
        report, _ = demo.communicate(timeout=400)
    finally:
        demo.kill()
        demo.wait(30)
    found = json.loads(report)
    assert (demo.returncode, found["ok"], found["problems"]) == (0, True, []), (tmp_path / "said.txt").read_text()
    assert found["outage"] is None
    assert found["proof"]["post"] == {"wanted": 2, "found": 2, "doubled": 0, "lost": 0}
    assert found["proof"]["render"] == {"wanted": 2, "found": 2, "doubled": 0, "lost": 0}
    assert sorted(video["stages"]["approval"] for video in found["videos"]) == ["done", "rejected"]
    assert "you have decided on every video" in (tmp_path / "said.txt").read_text()


def _hidden(page: str, name: str) -> str:
    match = re.search(f'name="{name}" value="([^"]+)"', page)
    assert match, name
    return match[1]


@pytest.mark.timeout(900)
def test_a_terminal_shows_videos_being_made_and_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    """Other widths are looked at by `unit/test_demo_screen.py`."""
    home = tmp_path / "demo"
    with terminal([*DEMO, "--videos", "1", "--keep", str(home)], environment(), columns=80, lines=24) as screen:
        screen.until("Phantoms demo", 300)
        screen.until("writing the script", 300)
        # ffmpeg's own progress: the video has another share on a later screen.
        screen.until(lambda text: len(set(re.findall(r"rendering (\d+)%", text))) >= 3, 300)
        screen.process.send_signal(signal.SIGINT)
        text = screen.rest(300)
        assert screen.process.returncode == 130
        assert "Nothing is still running" in text
        assert "Traceback" not in text
        assert f"rm -r {home}" in text
    assert left_running(home) == []
