"""Cleaning the files of retired videos: real files, real rows, and bytes that several videos share."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phantoms_dagster.domain.models import MediaFile
from phantoms_dagster.media.files import FolderStore
from phantoms_dagster.production.cleaning import CleaningReport, Policy, clean
from phantoms_dagster.store.cleaning import RetiredFiles
from phantoms_dagster_tests.integration.stage_world import World, open_world, output_of

TODAY = datetime.now(UTC)
KINDS = {"voice": ".wav", "master": ".mp4", "still": ".jpg", "variant": ".mp4"}


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


class Media:
    """A folder with files, and videos that were made of them."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.store, self._folder = world, FolderStore(folder / "media"), folder
        self.retirees = RetiredFiles(world.engine)

    async def file(self, name: str, suffix: str) -> MediaFile:
        path = self._folder / f"{name}{suffix}"
        path.write_bytes(name.encode() * 100)
        return await self.store.add(path)

    def names(self) -> set[str]:
        """What is left, by the names it was made under."""
        files = [path for path in (self._folder / "media").glob("??/*") if path.is_file()]
        return {path.read_bytes().decode()[: len(path.read_bytes()) // 100] for path in files}

    async def video(self, *, retired: timedelta | None = timedelta(days=10), files: Mapping[str, str] | None = None) -> str:
        """A finished video of these files (`voice`, `master`, `still`, `variant`; default: its own), retired that long ago."""
        [key] = self.world.add()
        given = files or {}
        made = {kind: await self.file(given.get(kind) or f"{kind} of {key}", suffix) for kind, suffix in KINDS.items()}
        outputs = {name: output_of(name).model_dump(mode="json") for name in ("voiceover", "rendered_video", "youtube/variant")}
        outputs["voiceover"]["audio"] = made["voice"].model_dump(mode="json")
        outputs["rendered_video"] |= {"video": made["master"].model_dump(), "thumbnail": made["still"].model_dump()}
        outputs["youtube/variant"]["video"] = made["variant"].model_dump()
        for name, output in outputs.items():
            self.write("output = CAST(:output AS jsonb)", key, name, output=json.dumps(output))
        self.write("state = 'done', finished_at = now() - interval '40 days'", key)
        self.world.write(
            "UPDATE phantoms.videos SET registered_at = now(), retired_at = :at WHERE key = :key",
            key=key,
            at=TODAY - retired if retired is not None else None,
        )
        return key

    def write(self, what: str, key: str, stage: str = "%", **values: Any) -> None:
        self.world.write(
            f"""UPDATE phantoms.stages s SET {what} FROM phantoms.videos v
                WHERE v.id = s.video_id AND v.key = :key AND s.stage LIKE :stage""",
            key=key,
            stage=stage,
            **values,
        )

    async def clean(self, policy: Policy, *, days: float = 7, **more: int) -> CleaningReport:
        return await clean(self.retirees, self.store, policy, before=TODAY - timedelta(days=days), **{"unused_seconds": 0, **more})


@pytest.fixture
def media(world: World, tmp_path: Path) -> Media:
    return Media(world, tmp_path)


def of(key: str, *kinds: str) -> set[str]:
    return {f"{kind} of {key}" for kind in kinds or KINDS}


async def test_each_policy_deletes_what_it_says_and_only_of_videos_retired_long_enough(media: Media) -> None:
    old, young = await media.video(), await media.video(retired=timedelta(days=3))
    live = await media.video(retired=None)
    untouched = of(young) | of(live)
    assert await media.clean("all") == CleaningReport()
    assert media.names() == of(old) | untouched
    night = await media.clean("master")
    assert (night.videos, night.files, night.kept, night.more) == (1, 2, 0, False)
    assert night.size == 100 * sum(len(name) for name in of(old, "voice", "variant"))
    assert media.names() == of(old, "master", "still") | untouched
    assert await media.clean("master") == CleaningReport()
    assert (await media.clean("none")).files == 2
    assert media.names() == untouched
    assert (await media.clean("none", days=0)).files == 4
    assert media.names() == of(live)


async def test_a_variant_that_is_the_master_stays_with_the_master(media: Media) -> None:
    key = await media.video(files={"master": "same", "variant": "same"})
    night = await media.clean("master")
    assert (night.files, night.kept) == (1, 1)
    assert media.names() == {"same", f"still of {key}"}
    assert (await media.clean("none")).files == 2
    assert media.names() == set()


@pytest.mark.parametrize("policy", ["master", "none"])
async def test_bytes_that_a_video_shares_with_one_that_is_not_retired_stay_until_that_is_over(media: Media, policy: Policy) -> None:
    shared = {kind: f"shared {kind}" for kind in KINDS}
    await media.video(files=shared)
    other = await media.video(retired=None, files=shared)
    night = await media.clean(policy)
    assert (night.videos, night.files) == (1, 0)
    assert media.names() == set(shared.values())
    media.world.write("UPDATE phantoms.videos SET retired_at = :at WHERE key = :key", key=other, at=TODAY - timedelta(days=8))
    night = await media.clean(policy)
    assert (night.videos, night.kept) == (1, 0)
    assert media.names() == (set() if policy == "none" else {"shared master", "shared still"})


async def test_bytes_shared_by_two_retired_videos_go_once(media: Media) -> None:
    shared = {kind: f"shared {kind}" for kind in KINDS}
    await media.video(files=shared)
    await media.video(files=shared)
    night = await media.clean("none")
    assert (night.videos, night.files, night.kept) == (2, 4, 0)
    assert media.names() == set()


async def test_a_master_that_the_policy_keeps_protects_a_voice_or_variant_of_the_same_bytes(media: Media) -> None:
    await media.video(files={"master": "video"})
    other = await media.video(files={"variant": "video"})
    await media.clean("master")
    assert "video" in media.names()
    assert f"variant of {other}" not in media.names()


@pytest.mark.parametrize("state", ["ready", "running", "deferred", "failed"])
async def test_a_video_with_anything_under_way_keeps_all_its_files_and_protects_the_shared_ones(media: Media, state: str) -> None:
    shared = {kind: f"shared {kind}" for kind in KINDS}
    busy = await media.video(files=shared)
    await media.video(files=shared)
    media.write("state = :state", busy, "youtube/post", state=state)
    assert (await media.clean("none")).files == 0
    assert media.names() == set(shared.values())


@pytest.mark.parametrize("state", ["opened", "uploading", "committing", "unknown"])
async def test_a_post_whose_outcome_is_open_keeps_its_bytes_even_if_another_video_has_them(media: Media, state: str) -> None:
    key = await media.video(files={"variant": "posted"})
    other = await media.video(files={"variant": "posted"})
    media.world.write(
        """INSERT INTO phantoms.posts (video_id, platform, account, state, marker, video_sha256, caption_sha256)
            SELECT id, 'youtube', 'a', :state, key, :sha, '' FROM phantoms.videos WHERE key = :key""",
        key=key,
        state=state,
        sha=hashlib.sha256(b"posted" * 100).hexdigest(),
    )
    # Even when its stage has forgotten what it was: the ledger has not.
    media.write("output = NULL", key, "youtube/variant")
    assert (await media.clean("none")).videos == 1
    assert media.names() == of(key, "voice", "master", "still") | {"posted"}
    assert other


async def test_a_video_whose_partition_is_not_deleted_yet_keeps_its_files(media: Media) -> None:
    key = await media.video()
    media.world.write("UPDATE phantoms.videos SET place = 1")
    assert await media.clean("none") == CleaningReport()
    assert media.names() == of(key)


async def test_a_video_that_was_unretired_and_regenerated_is_cleaned_again_after_its_next_retirement(media: Media) -> None:
    key = await media.video()
    await media.clean("none")
    assert media.world.catalogue.stages(key)["voiceover"].cleaned
    await media.file(f"voice of {key}", ".wav")
    media.write("finished_at = now()", key, "voiceover")
    assert not media.world.catalogue.stages(key)["voiceover"].cleaned
    assert (await media.clean("none")).files == 1
    assert media.names() == set()


async def test_a_night_has_its_bounds(media: Media) -> None:
    for _ in range(5):
        await media.video()
    first, second = await media.clean("none", most=3), await media.clean("none", most=3)
    assert [(night.videos, night.files, night.more) for night in (first, second)] == [(3, 12, True), (2, 8, False)]
    assert media.names() == set()


async def test_a_crash_after_some_files_are_gone_is_made_good_by_the_next_night(media: Media) -> None:
    await media.video()
    await media.video()

    class Fails(FolderStore):
        left = 3

        async def remove(self, file: MediaFile, *, unused_seconds: float = 0) -> bool:
            if self.left == 0:
                raise OSError("the disk is away")
            self.left -= 1
            await asyncio.sleep(0.05)  # still at work when the others fail
            return await super().remove(file, unused_seconds=unused_seconds)

    store, media.store = media.store, Fails(media.store._root)
    with pytest.raises(OSError, match="the disk is away"):
        await media.clean("none")
    assert len(media.names()) == 5  # what had begun was waited for
    assert media.world.rows("SELECT FROM phantoms.stages WHERE cleaned_at IS NOT NULL") == []
    media.store = store
    assert (await media.clean("none")).videos == 2
    assert media.names() == set()


async def test_the_first_error_stops_the_removals_that_have_not_begun(media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the store is away, only one removal is tried, not one for each file."""
    monkeypatch.setattr("phantoms_dagster.production.cleaning.AT_ONCE", 2)
    await media.video()
    await media.video()
    asked = 0

    class Away(FolderStore):
        async def remove(self, file: MediaFile, *, unused_seconds: float = 0) -> bool:
            nonlocal asked
            asked += 1
            raise OSError("the disk is away")

    media.store = Away(media.store._root)
    with pytest.raises(OSError, match="the disk is away"):
        await media.clean("none")
    assert 1 <= asked <= 2
    assert len(media.names()) == 8


VIDEOS = st.lists(
    st.fixed_dictionaries(
        {
            "files": st.fixed_dictionaries({kind: st.sampled_from(["a", "b", "c"]) for kind in ("voice", "master", "variant")}),
            "retired_days": st.sampled_from([None, 3, 10, 20]),
            "partition": st.sampled_from([False, False, True]),
            "post": st.sampled_from(["done", "done", "done", "discarded", "running", "deferred"]),
        }
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(videos=VIDEOS, policy=st.sampled_from(["master", "none"]))
async def test_cleaning_deletes_exactly_the_files_that_no_video_needs(
    media: Media, videos: list[dict[str, Any]], policy: Policy
) -> None:
    media.world.write("TRUNCATE phantoms.videos CASCADE")
    shutil.rmtree(media.store._root, ignore_errors=True)
    needed, owned = set[str](), set[str]()
    for video in videos:
        days = video["retired_days"]
        retired = None if days is None else timedelta(days=days)
        # Voices and videos have different suffixes: the same bytes are then two files.
        names = {kind: f"{name}{KINDS[kind]}" for kind, name in video["files"].items()}
        key = await media.video(retired=retired, files={"still": "still", **names})
        media.write("state = :state", key, "youtube/post", state=video["post"])
        if video["partition"]:
            media.world.write("UPDATE phantoms.videos SET place = id WHERE key = :key", key=key)
        over = days is not None and days > 7 and not video["partition"] and video["post"] in ("done", "discarded")
        files = {**names, "still": "still"}
        owned |= set(files.values())
        if not over:
            needed |= set(files.values())
        elif policy == "master":
            needed |= {files["master"], files["still"]}
    assert media.names() == owned
    night = await media.clean(policy)
    assert media.names() == needed
    assert night.files == len(owned - needed)
