"""Checks before posts: the job as Dagster runs it, against the platforms' stand-ins, and what people see of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from phantoms_dagster.cli.main import app
from phantoms_dagster.defs.preflight import preflight_job, preflight_sensor
from phantoms_dagster.domain.models import ApprovalOutput, MediaFile, Platform, VariantOutput, content_hash
from phantoms_dagster.domain.wording import post_words
from phantoms_dagster.media.files import FolderStore
from phantoms_dagster.sandbox.core import Fault, Sandbox
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring import Services
from phantoms_dagster.wiring.preflight import check_account_now
from phantoms_dagster_tests.integration.stage_world import CHANNEL, NOON, PROBE, SCRIPT, World, open_world
from phantoms_dagster_tests.sandbox_thread import sandbox_thread

ALL = (Platform("instagram"), Platform("tiktok"), Platform("youtube"))


@dataclass
class Checks:
    """A database with posts that are due, the sandbox, and Dagster."""

    services: Services
    sandbox: Sandbox
    url: str
    folder: Path

    def video(self, *, due: timedelta, approved: bool = True, caption: str = "About the sea. #sea") -> str:
        """A video whose posts are due then."""

        async def work() -> str:
            async with open_world(self.url) as world:
                return await self._video(world, due, approved=approved, caption=caption)

        return asyncio.run(work())

    async def _video(self, world: World, due: timedelta, *, approved: bool, caption: str) -> str:
        at = (datetime.now(UTC) + due).replace(microsecond=0)
        [key] = world.add(platforms=ALL, publish_at=at)
        await world.carry([key], "script", "voiceover", "rendered_video")
        if not approved:
            return key
        path = self.folder / f"{key}.mp4"
        path.write_bytes(b"\x00\x00\x00\x18ftypmp42" + key.encode())
        video: MediaFile = await FolderStore(self.folder / "media").add(path)
        words = tuple(w.model_copy(update={"caption": caption}) for w in post_words(SCRIPT, CHANNEL, ALL))
        content = content_hash(SCRIPT, video, words)
        approval = ApprovalOutput(reviewer="ann", content_sha256=content, decided_at=NOON, words=words)
        await world.carry([key], "approval", outputs={"approval": approval})
        for post in words:
            variant = VariantOutput(
                platform=post.platform,
                video=video,
                probe=PROBE,
                how="kept",
                title=post.title,
                caption=caption,
                content_sha256=content,
            )
            await world.carry([key], f"{post.platform}/variant", outputs={f"{post.platform}/variant": variant})
        return key

    def run(self) -> dict[str, Any]:
        """Tick the sensor, and run the job if it asks for it. Returns what the job reported."""
        with dg.DagsterInstance.ephemeral() as instance:
            context = dg.build_sensor_context(
                instance=instance, resources={"services": self.services}, sensor_name=preflight_sensor.name
            )
            if not preflight_sensor.evaluate_tick(context).run_requests:
                return {}
            result = preflight_job.execute_in_process(instance=instance, resources={"services": self.services})
            [event] = [event for event in result.all_events if event.is_successful_output]
            return {name: value.value for name, value in event.step_output_data.metadata.items()}

    def shown(self, *arguments: str) -> dict[str, dict[str, Mapping[str, str]]]:
        """`phantoms preflight --json`: by post and by account, the checks by name."""
        result = CliRunner().invoke(app, ["preflight", *arguments, "--json"])
        assert result.exit_code in (0, 1), result.output
        found = json.loads(result.stdout)
        rows = {f"{row['key']} {row['platform']}": row["checks"] for row in found["posts"]}
        rows |= {row["account"]: row["checks"] for row in found["accounts"]}
        return {name: {check["name"]: check for check in checks} for name, checks in rows.items()}

    def attention(self) -> list[tuple[str, str]]:
        return [(one.id, one.what) for one in self.services.waits_for_people() if one.id.startswith("preflight:")]


@pytest.fixture
def checks(database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checks]:
    with sandbox_thread(tmp_path) as running:
        environment = {"HOME": str(tmp_path), "DATABASE_URL": database_url, "REDIS_URL": redis_url, "SANDBOX_URL": running.url}
        for name, value in {**environment, "SANDBOX": "on"}.items():
            monkeypatch.setenv(f"PHANTOMS_{name}", value)
        services = Services(Settings())
        yield Checks(services, running.sandbox, database_url, tmp_path)
        services.close()


def test_a_post_is_checked_once_a_day_before_and_once_an_hour_before(checks: Checks) -> None:
    later, soon = checks.video(due=timedelta(hours=20)), checks.video(due=timedelta(minutes=40))
    checks.video(due=timedelta(hours=30))
    said = CliRunner().invoke(app, ["preflight"]).output
    assert "6 posts are due within 24 hours and not checked yet" in said
    assert f"phantoms preflight {soon}" in said
    assert checks.run() == {"accounts": 3, "posts": 6, "wrong": 0}
    assert "not checked yet" not in CliRunner().invoke(app, ["preflight"]).output
    assert checks.run() == {}  # nothing twice, not even after a restart
    with checks.services.engine.begin() as connection:
        phases = connection.exec_driver_sql(
            "SELECT v.key, phase FROM phantoms.preflight_posts JOIN phantoms.videos v ON v.id = video_id"
        )
        assert {tuple(row) for row in phases} == {(later, "day"), (soon, "hour")}
        connection.exec_driver_sql(f"UPDATE phantoms.videos SET publish_at = now() + interval '50 minutes' WHERE key = '{later}'")
    assert checks.run() == {"accounts": 3, "posts": 3, "wrong": 0}
    shown = checks.shown()
    assert shown[f"{soon} tiktok"]["creator"]["found"].endswith("may post this video as PUBLIC_TO_EVERYONE")
    assert shown[f"{soon} youtube"]["file and words"]["verdict"] == "ok"
    assert shown["instagram:instagram-account"]["quota"]["found"] == "0 of 100 posts of 24 hours are used"
    assert shown["youtube:youtube-account"]["daily limit"]["found"] == "0 of 100 posts of this day are used"
    assert {check["verdict"] for check in shown["youtube:youtube-account"].values()} == {"ok"}
    assert checks.attention() == []


def test_an_account_without_a_channel_is_said_before_its_slot_is_missed(checks: Checks) -> None:
    checks.video(due=timedelta(minutes=40))
    checks.sandbox.configure({"youtube.without_channel": ["youtube-account"]})
    checks.run()
    token = checks.shown()["youtube:youtube-account"]["token"]
    assert token["verdict"] == "wrong"
    assert "has no channel: create one" in token["found"]


def test_a_booked_post_is_checked_before_the_time_of_its_booking(checks: Checks) -> None:
    key = checks.video(due=timedelta(days=3))
    assert checks.run() == {}
    with checks.services.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO phantoms.bookings (video_id, platform, account, at, kind, state) "
            "SELECT id, 'youtube', 'youtube-account', now() + interval '40 minutes', 'slot', 'booked' "
            f"FROM phantoms.videos WHERE key = '{key}'"
        )
    assert checks.run() == {"accounts": 1, "posts": 1, "wrong": 0}
    assert list(checks.shown()) == [f"{key} youtube", "youtube:youtube-account"]


def test_a_post_that_was_taken_out_of_the_calendar_is_not_checked(checks: Checks) -> None:
    key = checks.video(due=timedelta(minutes=40))
    with checks.services.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO phantoms.bookings (video_id, platform, account, at, kind, state) "
            "SELECT id, 'youtube', 'youtube-account', now() + interval '40 minutes', 'fixed', 'cancelled' "
            f"FROM phantoms.videos WHERE key = '{key}'"
        )
    checks.run()
    posts = [name for name in checks.shown() if name.startswith(key)]
    assert posts
    assert f"{key} youtube" not in posts


def test_what_would_fail_is_said_once_an_account_with_the_fix_and_clears_when_it_is_fixed(checks: Checks) -> None:
    first, second = checks.video(due=timedelta(minutes=30)), checks.video(due=timedelta(hours=3))
    checks.sandbox.configure(
        {
            "tiktok.creator": {"privacy_level_options": ["SELF_ONLY"]},
            "instagram.quota_used": 100,
            "youtube.revoked": ["youtube-account"],
        }
    )
    checks.run()
    shown = checks.shown()
    creator = shown[f"{first} tiktok"]["creator"]
    assert "does not offer the privacy level PUBLIC_TO_EVERYONE; it offers SELF_ONLY" in creator["found"]
    assert creator["fix"].startswith("set `tiktok: {privacy: ...}` of the channel")
    token = shown["youtube:youtube-account"]["token"]
    assert (token["verdict"], token["fix"]) == (
        "wrong",
        "phantoms accounts connect youtube --name youtube-account, and leave all permissions ticked",
    )
    told = dict(checks.attention())
    assert {"preflight:tiktok:tiktok-account", "preflight:youtube:youtube-account"} <= set(told)
    assert len(checks.attention()) == len(told)  # two posts each, and one line
    assert second in {key.split()[0] for key in shown}

    checks.sandbox.configure({"tiktok.creator": {}, "youtube.revoked": []})
    with checks.services.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE phantoms.preflight_posts SET checked_at = checked_at - interval '16 minutes'")
    checks.run()
    assert {"preflight:tiktok:tiktok-account", "preflight:youtube:youtube-account"}.isdisjoint(dict(checks.attention()))


def test_a_check_lets_a_barred_account_try_at_once_but_not_if_it_finds_the_account_barred(checks: Checks) -> None:
    tiktok = Platform("tiktok")

    def asked() -> object:
        with checks.services.engine.begin() as connection:
            return connection.exec_driver_sql("SELECT asked_at FROM phantoms.accounts WHERE platform = 'tiktok'").scalar()

    with checks.services.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO phantoms.accounts (platform, name, state, reason, state_since, asked_at)"
            " VALUES ('tiktok', 'tiktok-account', 'barred', 'banned', now(), now())"
        )
    checks.sandbox.configure({"tiktok.banned_accounts": ["tiktok-account"]})
    assert "wrong" in {check.verdict for check in check_account_now(checks.services, tiktok, "tiktok-account")}
    assert asked() is not None
    checks.sandbox.configure({"tiktok.banned_accounts": []})
    check_account_now(checks.services, tiktok, "tiktok-account")
    assert asked() is None


def test_a_platform_that_does_not_answer_could_not_be_checked_and_is_no_failure(checks: Checks) -> None:
    key = checks.video(due=timedelta(minutes=30))
    checks.sandbox.faults += [Fault(route, kind="status", status=503) for route in ("tiktok.*", "instagram.*", "youtube.*")]
    told = checks.run()
    assert told["wrong"] == 0
    token = checks.shown()["youtube:youtube-account"]["token"]
    assert (token["verdict"], token["found"].startswith("could not be checked: ")) == ("unchecked", True)
    assert checks.attention() == []
    checks.sandbox.faults.clear()
    with checks.services.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE phantoms.preflight_posts SET checked_at = checked_at - interval '16 minutes'")
    checks.run()
    assert checks.shown()[f"{key} tiktok"]["creator"]["verdict"] == "ok"


def test_a_video_that_nobody_has_approved_is_said_before_its_slot_is_missed(checks: Checks) -> None:
    key = checks.video(due=timedelta(minutes=30), approved=False)
    checks.run()
    found = checks.shown()[f"{key} youtube"]["video"]
    assert (found["verdict"], found["found"]) == ("wrong", "nobody has approved it yet")
    assert checks.attention() == []  # the review has its own line


def test_the_words_and_the_file_are_held_against_the_platforms_rules(checks: Checks) -> None:
    key = checks.video(due=timedelta(days=3), caption="sea " * 1_000)
    assert checks.shown() == {}
    shown = checks.shown(key)  # a person asks, although it is not due yet
    words = shown[f"{key} tiktok"]["file and words"]
    assert (words["verdict"], "the caption has 4000 UTF-16 units" in words["found"]) == ("wrong", True)
    assert shown[f"{key} youtube"]["file and words"]["verdict"] == "ok"
