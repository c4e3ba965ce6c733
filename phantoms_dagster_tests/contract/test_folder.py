"""The outbox on a real disk: a post is there once and complete, no matter when the process dies."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from phantoms_dagster.domain.errors import NotYet, Permanent, Transient
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.platforms.folder.publisher import FolderPublisher, folder_name
from phantoms_dagster.production.publication import publish
from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster_tests.contract.publishing_kit import FakeJournal, Killed, SandboxClock, at
from phantoms_dagster_tests.contract.test_instagram import make_job as any_job

SAVES = 4


def make_job(folder: Path) -> PublishJob:
    return any_job(folder, platform=Platform("folder"), account="Ocean / Facts", marker="20261122-eels-1-folder")


@pytest.fixture
def publisher(tmp_path: Path) -> FolderPublisher:
    return FolderPublisher(tmp_path / "outbox", clock=SandboxClock(Sandbox(seed=1)))


def posts(publisher: FolderPublisher) -> list[Path]:
    return [path for path in sorted(publisher.outbox.glob("*/*")) if not path.name.startswith(".")]


async def test_a_post_is_a_folder_with_the_video_the_words_and_the_facts(publisher: FolderPublisher, tmp_path: Path) -> None:
    job, journal = make_job(tmp_path), FakeJournal()
    post = await publish(publisher, job, journal)
    [place] = posts(publisher)
    assert (place.parent.name, place.name) == (folder_name("Ocean / Facts"), "20261122-eels-1-folder")
    assert (place / "video.mp4").read_bytes() == job.file.read_bytes()
    assert job.caption in (place / "caption.txt").read_text(encoding="utf-8")
    facts = json.loads((place / "post.json").read_text(encoding="utf-8"))
    assert (facts["account"], facts["sha256"]) == (job.account, job.sha256)
    assert (post.url, post.remote_id) == (place.as_uri(), f"{place.parent.name}/{place.name}")
    assert journal.count == SAVES


@pytest.mark.parametrize("moment", ["before save", "after save"])
@pytest.mark.parametrize("number", range(1, SAVES + 1))
async def test_a_process_killed_at_any_save_has_put_the_post_there_once(
    publisher: FolderPublisher, tmp_path: Path, moment: str, number: int
) -> None:
    job, journal = make_job(tmp_path), FakeJournal(kill=at(moment, number))
    with pytest.raises(Killed):
        await publish(publisher, job, journal)
    await publish(publisher, job, journal)
    assert journal.record.state is PostState.CONFIRMED
    [place] = posts(publisher)
    assert (place / "video.mp4").read_bytes() == job.file.read_bytes()
    assert list(place.parent.glob(".*")) == []


async def test_a_post_that_was_taken_away_since_is_not_put_there_again(publisher: FolderPublisher, tmp_path: Path) -> None:
    job, journal = make_job(tmp_path), FakeJournal(kill=at("before save", SAVES))
    with pytest.raises(Killed):
        await publish(publisher, job, journal)
    [place] = posts(publisher)
    place.rename(tmp_path / "posted")
    post = await publish(publisher, job, journal)
    assert (posts(publisher), post.published_at <= datetime.now(UTC)) == ([], True)


async def test_a_post_that_may_not_go_at_the_last_moment_is_still_before_its_commit(
    publisher: FolderPublisher, tmp_path: Path
) -> None:
    """Otherwise nobody could move or cancel it any more."""
    closed = [True]

    async def may_go() -> None:
        if closed:
            raise NotYet("taken out of the calendar", retry_after=1)

    job, journal = replace(make_job(tmp_path), may_go=may_go), FakeJournal()
    with pytest.raises(NotYet, match="taken out of the calendar"):
        await publish(publisher, job, journal)
    assert journal.record.state is PostState.UPLOADING
    assert posts(publisher) == []
    closed.clear()
    await publish(publisher, job, journal)
    assert len(posts(publisher)) == 1


async def test_an_outbox_that_cannot_be_used_is_a_passing_failure_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("a file", encoding="utf-8")
    publisher = FolderPublisher(tmp_path / "outbox", clock=SandboxClock(Sandbox(seed=1)))
    with pytest.raises(Transient, match=r"outbox .* cannot be used"):
        await publish(publisher, make_job(tmp_path), FakeJournal())


async def test_a_video_that_is_not_the_approved_one_fails_before_anything_is_written(
    publisher: FolderPublisher, tmp_path: Path
) -> None:
    job = make_job(tmp_path)
    job.file.write_bytes(b"short")
    with pytest.raises(Permanent, match="size differs"):
        await publish(publisher, job, FakeJournal())
    assert posts(publisher) == []


def test_names_of_accounts_stay_apart_and_inside_the_outbox() -> None:
    names = ["a/b", "a_b", "..", ".hidden", "Straße", "a" * 90, "a" * 91]
    assert len({folder_name(name) for name in names}) == len(names)
    assert all("/" not in folder_name(name) and not folder_name(name).startswith(".") for name in names)
