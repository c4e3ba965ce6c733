"""`phantoms demo`, as a newcomer runs it: real servers, real renders, real posts to the sandbox."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from phantoms_dagster.media.studio import FfmpegStudio


@pytest.mark.timeout(900)
def test_the_demo_prints_one_json_object_and_leaves_playable_files(tmp_path: Path) -> None:
    """Exit code 0 means that the sandbox's ledger holds exactly one post for every video and platform."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PHANTOMS_", "DAGSTER_"))}
    demo = ["demo", "--videos", "1", "--json", "--keep", str(tmp_path / "demo")]
    command = [sys.executable, "-m", "phantoms_dagster.cli.main", *demo]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=880)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert report["totals"]["posts"] == report["totals"]["ledger_posts"] == 3
    assert report["totals"]["views"] > 0
    [video] = report["videos"]
    assert set(video["stages"].values()) == {"done"}
    assert sorted(post["platform"] for post in video["posts"]) == ["instagram", "tiktok", "youtube"]
    for name in ("rendered_video", "youtube/variant", "tiktok/variant", "instagram/variant"):
        probe = asyncio.run(FfmpegStudio().probe(Path(video["files"][name]), loudness=True))
        assert (probe.width, probe.height, probe.fps) == (1080, 1920, 30)
        assert (probe.video_codec, probe.audio_codec, probe.moov_first) == ("h264", "aac", True)
        assert 15 <= probe.seconds <= 60
        assert probe.loudness_lufs is not None
        assert abs(probe.loudness_lufs + 14) <= 1
