"""`phantoms status`, `show`, `approve` and `reject` against a real database."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner, Result

from phantoms_dagster.cli.main import app
from phantoms_dagster.domain.channels import default_text
from phantoms_dagster.store.engine import engine

SCENE = {"narration": "Two pump blood.\x1b[2J", "on_screen_text": "THREE [red]HEARTS"}
SCRIPT = {"hook": "Listen :fire:", "scenes": [SCENE], "title": "Hearts", "caption": "Why?", "hashtags": ["#sea"]}
PROBE = {"container": "mp4", "seconds": 30, "size": 1, "width": 1080, "height": 1920, "fps": 30, "video_codec": "h264"} | {
    "pixel_format": "yuv420p",
    "bit_rate": 1,
    "moov_first": True,
}
FILE = {"sha256": "ab" * 32, "size": 10, "suffix": ".mp4"}
RENDERED = {"kind": "rendered_video", "video": FILE, "thumbnail": FILE, "probe": PROBE, "renderer": "local", "render_id": "1"}
POST = {"kind": "post", "platform": "youtube", "account": "sea", "remote_id": "x", "url": "https://youtu.be/x"} | {
    "published_at": "2026-11-22T12:00:00Z"
}
VOICE = {"kind": "voiceover", "audio": FILE, "seconds": 20.0, "voice": "test"} | {
    "sentences": [{"text": "Listen", "scene": -1, "start": 0.0, "end": 1.0}]
}


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str) -> Iterator[Engine]:
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", database_url)
    made = engine(database_url)
    yield made
    made.dispose()


def phantoms(*arguments: str, width: int = 100) -> Result:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": str(width)})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "\x1b" not in result.output
    return result


def added(title: str) -> str:
    return phantoms("add", title, "--platforms", "youtube").stdout.split()[1]


def put(database: Engine, key: str, stage: str, state: str, output: object = None, **fields: object) -> None:
    values = {"state": state, "output": json.dumps(output) if output else None, "ready_at": "now", **fields}
    settings = ", ".join(f"{name} = :{name}" for name in values)
    which = "stage = :stage AND video_id = (SELECT id FROM phantoms.videos WHERE key = :key)"
    statement = f"UPDATE phantoms.stages SET {settings} WHERE {which}"
    with database.begin() as connection:
        connection.execute(text(statement), {**values, "stage": stage, "key": key})


def sha_of(title: str) -> str:
    """The hash that the file of a rendered video has in these tests."""
    return hashlib.sha256(title.encode()).hexdigest()


def rendered(database: Engine, title: str, *, caption: str = "Why?") -> str:
    """The key of a video that waits for review."""
    key = added(title)
    script = {**SCRIPT, "caption": caption}
    video = {**FILE, "sha256": sha_of(title)}
    put(database, key, "script", "done", {"kind": "script", "script": script, "model": "m"})
    put(database, key, "voiceover", "done", {"kind": "voiceover"})
    put(database, key, "rendered_video", "done", {**RENDERED, "video": video})
    put(database, key, "approval", "ready")
    return key


def test_an_empty_catalogue_says_how_to_begin(database: Engine) -> None:
    assert phantoms("status").stdout.startswith("no videos yet; add one: phantoms add")


@pytest.mark.parametrize("width", [20, 40, 80, 100, 200])
def test_status_keeps_keys_whole_marks_each_stage_and_says_what_to_do(database: Engine, width: int) -> None:
    waiting, failed = rendered(database, "Why octopuses have three hearts and eight arms"), added("Honey")
    put(database, failed, "script", "failed")
    result = phantoms("status", width=width)
    assert waiting in result.stdout
    assert failed in result.stdout
    assert "●●●○··" in result.stdout
    assert f"phantoms approve {waiting}" in result.stdout
    if width >= 40:
        assert "script failed" in result.stdout
        assert "to review" in result.stdout
    assert ("USD" in result.stdout) == (width >= 90)


def test_status_as_json_is_one_object(database: Engine) -> None:
    key = rendered(database, "Hearts")
    result = phantoms("status", "--json", "--limit", "1")
    found = json.loads(result.stdout)
    assert (result.stderr, found["to_review"], found["videos"][0]["key"]) == ("", [key], key)
    assert found["videos"][0]["cost"] == 0
    assert found["stages"]["approval"] == {"ready": 1}


@pytest.mark.parametrize("width", [48, 80, 160])
def test_show_tells_everything_as_it_was_written(database: Engine, width: int) -> None:
    key = rendered(database, "Hearts [bold]and[/bold] :fire: [/nonsense]")
    put(database, key, "youtube/variant", "failed", error_class="permanent", reason="too [long] " + "x" * 300)
    shown = phantoms("show", "hearts", width=width).stdout
    flat = " ".join(shown.replace("│", " ").split())
    for part in ("Hearts [bold]and[/bold] :fire: [/nonsense]", "THREE [red]HEARTS", "Two pump blood.", "#sea"):
        assert part in flat
    assert "permanent" in flat
    digest = sha_of("Hearts [bold]and[/bold] :fire: [/nonsense]")
    assert f"/media/{digest[:2]}/{digest[2:]}.mp4\n" in shown
    assert f"phantoms approve {key}\n" in shown
    assert max(map(len, (line for line in shown.splitlines() if line.startswith(("│", "╭", " youtube"))))) <= width


def test_show_links_posts_and_does_not_ask_for_a_decision_that_was_made(database: Engine) -> None:
    key = rendered(database, "Hearts")
    put(database, key, "approval", "done", {"kind": "approval"})
    put(database, key, "youtube/post", "done", POST)
    shown = phantoms("show", key).stdout
    assert "youtube/post: https://youtu.be/x\n" in shown
    assert "waits for you" not in shown


def test_show_as_json_is_one_object(database: Engine) -> None:
    key = rendered(database, "Hearts")
    found = json.loads(phantoms("show", key, "--json").stdout)
    assert (found["key"], found["brief"]["title"], found["stages"]["script"]["state"]) == (key, "Hearts", "done")


def test_a_key_that_is_not_there_or_not_clear_is_said(database: Engine) -> None:
    first, second = added("Sea one"), added("Sea two")
    missing, unclear = phantoms("show", "lake"), phantoms("show", "sea-")
    assert (missing.exit_code, unclear.exit_code) == (2, 2)
    assert "no video 'lake'; `phantoms status` lists them" in missing.stderr
    assert first in unclear.stderr
    assert second in unclear.stderr
    assert phantoms("show", "lake", "--json").stdout == ""
    assert len(phantoms("show", "x" * 100_000).stderr) < 5_000


def test_approve_and_reject_record_who_decided_and_why(database: Engine) -> None:
    good, bad = rendered(database, "Good"), rendered(database, "Bad")
    approved = phantoms("approve", "good", "--reviewer", "Ada").stdout.splitlines()
    assert approved == [f"approved {good}", "  next: `phantoms up` posts it, at once", f"  follow it: phantoms show {good}"]
    rejected = phantoms("reject", "bad", "--note", "dull", "--reviewer", "Bob").stdout.splitlines()
    assert rejected[0] == f"rejected {bad}"
    assert rejected[-2:] == [f"  phantoms retry {bad} --from script", f"  phantoms approve {bad}"]
    with database.connect() as connection:
        rows = connection.execute(text("SELECT approved, reviewer, note, via FROM phantoms.approvals ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [(True, "Ada", "", "cli"), (False, "Bob", "dull", "cli")]


def test_all_decides_everything_that_waits_and_then_nothing(database: Engine) -> None:
    keys = {rendered(database, title, caption=title) for title in ("One", "Two", "Three")}
    added("Not rendered")
    result = phantoms("approve", "--all")
    *decided, following = result.stdout.splitlines()
    assert {line.removeprefix("approved ") for line in decided} == keys
    assert following == "  next: `phantoms up` posts them, 3 at once; follow them: `phantoms status`"
    assert phantoms("approve", "--all").stdout.startswith("nothing is waiting for review")


def test_the_channels_file_of_a_new_user_holds_a_post_that_repeats_another_one(database: Engine) -> None:
    first, second = rendered(database, "Honey"), rendered(database, "Bees")
    result = phantoms("approve", "--all")
    assert f"the posts of {second}" not in result.stdout
    assert f"phantoms calendar override {second}" in result.stderr
    assert "its posts wait for your decision; `phantoms calendar` says why and what you can do" in result.stdout
    listed = phantoms("calendar", width=200).stdout
    assert f"to allow a repetition, for example:\n  phantoms calendar override {second}\n" in listed
    assert "put back" not in listed
    phantoms("calendar", "override", second)
    phantoms("calendar", "cancel", first)
    listed = phantoms("calendar", width=200).stdout
    assert "to allow a repetition" not in listed
    assert f"to put back what was taken out, for example:\n  phantoms calendar move {first} now\n" in listed


def test_a_video_that_is_not_rendered_yet_keeps_no_other_from_being_decided(database: Engine) -> None:
    early, ready = added("Early"), rendered(database, "Ready")
    result = phantoms("approve", early, ready)
    assert result.exit_code == 2
    assert f"error: {early} is not rendered yet" in result.stderr
    assert result.stdout.startswith(f"approved {ready}\n")


def test_a_mistyped_name_leaves_everything_undecided(database: Engine) -> None:
    ready = rendered(database, "Ready")
    assert phantoms("approve", ready, "misstyped").exit_code == 2
    assert json.loads(phantoms("status", "--json").stdout)["to_review"] == [ready]


def test_naming_nothing_or_both_is_refused(database: Engine) -> None:
    assert phantoms("approve").exit_code == 2
    assert phantoms("reject", "x", "--all").exit_code == 2


def test_a_reviewer_without_a_name_on_this_machine_is_a_number(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", unknown)
    key = rendered(database, "Good")
    assert phantoms("approve", key).exit_code == 0
    with database.connect() as connection:
        assert str(connection.execute(text("SELECT reviewer FROM phantoms.approvals")).scalar()).startswith("uid ")


def test_show_says_what_of_the_script_was_removed_and_what_is_shown_but_not_spoken(database: Engine) -> None:
    key = rendered(database, "Honey")
    removed = ["scene 1: **", "hook: [pause]"]
    put(database, key, "script", "done", {"kind": "script", "script": SCRIPT, "model": "m", "removed": removed})
    put(database, key, "voiceover", "done", {**VOICE, "unspoken": ["水"]})
    shown = phantoms("show", key).stdout
    assert "removed from the script: scene 1: **, hook: [pause]" in shown
    assert "shown but not spoken: 水" in shown


def test_approve_reads_channels_yaml_as_it_is_now(database: Engine, tmp_path: Path) -> None:
    key = rendered(database, "Good")
    file = tmp_path / "channels.yaml"
    file.write_text(default_text().replace('"#shorts"', '"#short"'), encoding="utf-8")
    assert phantoms("approve", key).exit_code == 0
    with database.connect() as connection:
        config = connection.execute(text("SELECT config FROM phantoms.channels WHERE name = 'curious'")).scalar_one()
    assert config["hashtags"] == ["#curious", "#short"]
    file.write_text("channels:\n  curious: 5\n", encoding="utf-8")
    broken = phantoms("approve", key)
    assert (broken.exit_code, "channels.yaml line 2" in broken.stderr) == (2, True)
