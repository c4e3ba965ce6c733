"""Variants of a real master in a real store. A file that fits is kept; one that does not is remade and probed once."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from phantoms_dagster.domain.claims import Claim, StageTask
from phantoms_dagster.domain.errors import Permanent
from phantoms_dagster.domain.models import (
    ApprovalOutput,
    Platform,
    RenderedVideoOutput,
    ScriptOutput,
    VariantOutput,
    Video,
    content_hash,
)
from phantoms_dagster.domain.stages import stage
from phantoms_dagster.media import ffmpeg
from phantoms_dagster.media.files import FolderStore
from phantoms_dagster.media.mp4 import read_boxes
from phantoms_dagster.media.studio import FfmpegStudio
from phantoms_dagster.production.stages.rendered_video import scratch_file
from phantoms_dagster.production.stages.variant import MakeVariant
from phantoms_dagster_tests.integration.stage_world import CHANNEL, NOON, SCRIPT, brief, media_file


class NoAttempt:
    """An attempt that records nothing, because a variant makes no request."""

    id = "attempt-1"
    stored_response = None
    in_doubt: Sequence[str] = ()
    reads = 0

    async def received(self, *_: Any, **__: Any) -> None:
        raise AssertionError("nothing was bought")


@dataclasses.dataclass
class MediaFiles:
    """An approved master with the edit lists that ffmpeg writes by default."""

    store: FolderStore
    master: RenderedVideoOutput
    root: Path

    @property
    def scratches(self) -> list[Path]:
        folder = self.root / "scratch"
        return list(folder.iterdir()) if folder.exists() else []

    async def vary(self, platform: Platform, *, approved: str | None = None) -> VariantOutput:
        content = approved or content_hash(SCRIPT, self.master.video)
        claim = Claim(
            video_id=1,
            video=Video(key="20261122-tides-1", brief=brief(1), channel=CHANNEL, created_at=NOON),
            stage=stage(f"{platform}/variant"),
            revision=1,
            generation=1,
            attempt_row=1,
            attempts_used=0,
            inputs={
                "script": ScriptOutput(script=SCRIPT, model="test"),
                "rendered_video": self.master,
                "approval": ApprovalOutput(reviewer="ann", content_sha256=content, decided_at=NOON),
            },
            spent=Decimal(0),
            run_id="run-1",
        )
        made = await MakeVariant(studio=FfmpegStudio(), media=self.store)(StageTask(claim, NoAttempt()))
        assert isinstance(made.output, VariantOutput)
        return made.output


@pytest.fixture
async def media_files(tmp_path: Path) -> MediaFiles:
    source_file, root = tmp_path / "source_file.mp4", tmp_path / "media"
    source = ["-f", "lavfi", "-i", "testsrc2=s=540x960:r=30:d=4", "-f", "lavfi", "-i", "sine=d=4"]
    await ffmpeg.run(
        [*source, "-c:v", "libx264", "-preset", "fast", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(source_file)]
    )
    probe = (await FfmpegStudio().probe(source_file)).model_copy(update={"loudness_lufs": -14.0})
    store = FolderStore(root)
    video = await store.add(source_file)
    master = RenderedVideoOutput(video=video, thumbnail=media_file("still", ".jpg"), probe=probe, renderer="test", render_id="r1")
    return MediaFiles(store, master, root)


async def test_a_master_that_fits_is_the_variant_and_makes_no_file(
    media_files: MediaFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(media_files.store, "scratch_file", asked.append)
    made = await media_files.vary(Platform("tiktok"))
    assert (made.how, made.video, made.probe, asked) == ("kept", media_files.master.video, media_files.master.probe, [])


async def test_a_master_with_edit_lists_is_remuxed_for_instagram(media_files: MediaFiles) -> None:
    made = await media_files.vary(Platform("instagram"))
    path = await media_files.store.local(made.video)
    assert (made.how, made.video == media_files.master.video) == ("remuxed", False)
    assert made.probe == await FfmpegStudio().probe(path)
    assert (made.probe.size, read_boxes(path).edited) == (made.video.size, False)
    assert media_files.scratches == []


async def test_what_was_not_approved_is_not_varied(media_files: MediaFiles) -> None:
    with pytest.raises(Permanent, match="not what was approved"):
        await media_files.vary(Platform("tiktok"), approved="0" * 64)


async def test_a_video_that_shows_the_channels_name_never_becomes_a_variant_for_tiktok(media_files: MediaFiles) -> None:
    media_files.master = media_files.master.model_copy(update={"named": True})
    with pytest.raises(Permanent, match="regenerate") as refused:
        await media_files.vary(Platform("tiktok"))
    assert refused.value.code == "named"
    assert (await media_files.vary(Platform("youtube"))).how == "kept"


async def test_a_thread_that_outlives_its_task_gets_no_place_to_write_to(media_files: MediaFiles) -> None:
    with scratch_file(media_files.store, ".mp4") as destination:
        first = await asyncio.to_thread(destination)
        first.write_bytes(b"half a video")
        assert (first, first.parent.is_dir()) == (destination(), True)
    assert media_files.scratches == []
    with pytest.raises(FileNotFoundError):
        destination()
    assert media_files.scratches == []
