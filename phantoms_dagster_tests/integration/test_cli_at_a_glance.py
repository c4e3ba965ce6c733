"""What the commands say at a glance: what waits, what is wrong and what to type, what happens next and when. Keys stay whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner, Result

from phantoms_dagster.cli.completion import complete_video
from phantoms_dagster.cli.main import app
from phantoms_dagster.store.engine import engine
from phantoms_dagster_tests.program import whole_program
from phantoms_dagster_tests.unit.test_readme import GUIDE

LONG = "Why octopuses have three hearts and eight arms"
SCENE = {"narration": "Two pump blood.", "on_screen_text": "THREE HEARTS"}
SCRIPT = {"hook": "Listen", "scenes": [SCENE], "title": "Hearts", "caption": "Why?", "hashtags": ["#sea"]}
PROBE = {"container": "mp4", "seconds": 30, "size": 1, "width": 1080, "height": 1920, "fps": 30, "video_codec": "h264"} | {
    "pixel_format": "yuv420p",
    "bit_rate": 1,
    "moov_first": True,
}
SHA = "ab" * 32
FILE = {"sha256": SHA, "size": 4, "suffix": ".mp4"}
RENDERED = {"kind": "rendered_video", "video": FILE, "thumbnail": FILE, "probe": PROBE, "renderer": "local", "render_id": "1"}
# Commands that stay running or answer a question; `metrics`, which serves other programs, and `desk`, which serves browsers.
WITHOUT_JSON = {"up", "sandbox", "worker", "init", "metrics", "desk", "webhooks"}


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str, redis_url: str) -> Iterator[Engine]:
    for name in [n for n in os.environ if n.startswith("PHANTOMS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", database_url)
    monkeypatch.setenv("PHANTOMS_REDIS_URL", redis_url)
    monkeypatch.setenv("PHANTOMS_SANDBOX_URL", "http://127.0.0.1:1")
    made = engine(database_url)
    yield made
    made.dispose()


def phantoms(*arguments: str, width: int = 100) -> Result:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": str(width)})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def added(title: str, *options: str, platforms: str = "youtube") -> str:
    return str(json.loads(phantoms("add", title, "--platforms", platforms, "--json", *options).stdout)["key"])


def put(database: Engine, key: str, stage: str, state: str, output: object = None, **fields: object) -> None:
    values = {"state": state, "output": json.dumps(output) if output else None, "ready_at": datetime.now(UTC), **fields}
    settings = ", ".join(f"{name} = :{name}" for name in values)
    which = "stage = :stage AND video_id = (SELECT id FROM phantoms.videos WHERE key = :key)"
    statement = f"UPDATE phantoms.stages SET {settings} WHERE {which}"
    with database.begin() as connection:
        connection.execute(text(statement), {**values, "stage": stage, "key": key})


def sha_of(title: str) -> str:
    """The hash that the file of a rendered video has in these tests."""
    return hashlib.sha256(title.encode()).hexdigest()


def rendered(database: Engine, title: str, *options: str) -> str:
    key = added(title, *options)
    video = {**FILE, "sha256": sha_of(title)}
    put(database, key, "script", "done", {"kind": "script", "script": {**SCRIPT, "caption": title}, "model": "m"})
    put(database, key, "voiceover", "done", {"kind": "voiceover"})
    put(database, key, "rendered_video", "done", {**RENDERED, "video": video})
    put(database, key, "approval", "ready")
    return key


def scheduled(database: Engine, at: datetime) -> str:
    key = rendered(database, "Honey")
    put(database, key, "approval", "done", {"kind": "approval"})
    put(database, key, "youtube/post", "ready", ready_at=at)
    return key


def failed(database: Engine, title: str, stage: str = "youtube/variant") -> str:
    key = added(title, platforms=stage.partition("/")[0])
    put(database, key, stage, "failed", error_class="permanent", reason="no")
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO phantoms.dead_letters "
                "(video_id, stage, revision, provider, error_class, code, message, evidence, attempts) "
                "SELECT id, :stage, 1, 'youtube', 'permanent', '400', 'no', '{}', '[]' FROM phantoms.videos WHERE key = :key"
            ),
            {"key": key, "stage": stage},
        )
    return key


# --- Build 6: times, breakers, keys


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Sao_Paulo"])
def test_a_post_with_a_later_time_says_so_with_the_name_of_the_zone(
    database: Engine, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        at = datetime.now(UTC) + timedelta(hours=2)
        key = scheduled(database, at)
        there = at.astimezone()
        name = there.tzname() or ""
        said = f"scheduled for {there:%H:%M} {name if name.isalpha() else f'UTC{name}'}"
        assert said in phantoms("status").stdout
        assert said in " ".join(phantoms("show", key).stdout.split())
        assert json.loads(phantoms("show", key, "--json").stdout)["stages"]["youtube/post"]["note"] == said
        assert f"{said.removeprefix('scheduled for ')}: youtube/post of {key}" in phantoms("status").stdout
    finally:
        monkeypatch.undo()
        time.tzset()


def test_no_command_writes_a_time_without_a_zone(database: Engine) -> None:
    key = scheduled(database, datetime.now(UTC) + timedelta(days=3))
    put(database, key, "youtube/variant", "deferred", retry_at=datetime.now(UTC) + timedelta(days=2), reason="slow")
    failed(database, "Eels")
    phantoms("breakers", "trip", "sandbox/openai", "--why", "test", "--for", "600")
    commands = [["status"], ["show", key], ["dead-letters", "list"], ["dead-letters", "show", "1"], ["breakers"]]
    for command in [*commands, ["breakers", "history", "sandbox/openai"]]:
        shown = phantoms(*command, width=160).stdout
        times = re.findall(r"\d\d:\d\d(?::\d\d)?\b(.{5})", shown)
        assert times, command
        assert all(re.match(r" (UTC|[A-Z]{3,4})", after) for after in times), (command, times)


def test_a_tripped_breaker_is_shown_on_each_video_that_waits_for_it_and_in_status(database: Engine) -> None:
    key = added(LONG)
    phantoms("breakers", "trip", "sandbox/openai", "--why", "maintenance")
    shown = phantoms("status", width=240).stdout
    said = "waits: the breaker of sandbox/openai is open, until `phantoms breakers reset sandbox/openai`"
    assert f"script ready, {said}" in shown
    assert "phantoms breakers history sandbox/openai" in shown
    assert said in phantoms("show", key, width=200).stdout
    found = json.loads(phantoms("status", "--json").stdout)
    assert (found["breakers"][0]["breaker"], found["videos"][0]["now"]) == ("sandbox/openai", f"script ready, {said}")


def test_a_breaker_of_real_calls_is_not_told_on_videos_that_the_sandbox_answers(database: Engine) -> None:
    added(LONG)
    phantoms("breakers", "trip", "openai", "--why", "maintenance")
    assert "breaker" not in phantoms("status", width=160).stdout


def test_status_says_that_redis_is_away_and_shows_everything_else(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    key = added(LONG)
    monkeypatch.setenv("PHANTOMS_REDIS_URL", "redis://127.0.0.1:1/0")
    result = phantoms("status")
    assert (result.exit_code, key in result.stdout) == (0, True)
    assert "Nothing runs: Redis does not answer" in result.stdout


@pytest.mark.parametrize("width", [20, 40, 60, 72, 80, 100, 110, 120, 160])
def test_no_command_breaks_a_key_over_two_lines_or_cuts_it(database: Engine, width: int) -> None:
    keys = [
        rendered(database, LONG),
        failed(database, f"{LONG} too", "instagram/variant"),
        scheduled(database, datetime.now(UTC) + timedelta(days=2)),
    ]
    for command in (["status"], ["dead-letters", "list"], ["show", keys[0]], ["show", keys[1]], ["dead-letters", "show", "1"]):
        shown = phantoms(*command, width=width).stdout
        wanted = [
            key for key in keys if command[0] == "status" or key in command or (command[0] == "dead-letters" and key == keys[1])
        ]
        for key in wanted:
            assert key in shown, (command, width)


@pytest.mark.parametrize("width", [60, 72, 80, 120])
def test_show_keeps_the_names_of_stages_whole_next_to_a_long_note(database: Engine, width: int) -> None:
    """They are what `phantoms retry --from` is given."""
    key = added(LONG, platforms="youtube,tiktok,instagram")
    reason = "render 18011bbf-0311-436b-b865-b8cd86e0a9bd is still under way, and its service has not said for how long"
    put(
        database, key, "script", "done", {"kind": "script", "script": SCRIPT, "model": "m"}, finished_at=datetime.now(UTC), cost=0.5
    )
    put(database, key, "rendered_video", "deferred", retry_at=datetime.now(UTC) + timedelta(hours=1), reason=reason)
    shown = phantoms("show", key, width=width).stdout
    assert "is still under" in " ".join(shown.split())
    for stage in ("rendered_video", "instagram/variant", "youtube/post"):
        assert stage in shown


def test_status_names_the_command_for_failures_and_show_names_them_for_its_video(database: Engine) -> None:
    key = failed(database, LONG)
    shown = phantoms("status").stdout
    assert "1 video failed for good in youtube/variant" in shown
    assert "phantoms dead-letters list --stage youtube/variant" in shown
    alone = phantoms("show", key).stdout
    assert f"phantoms dead-letters show {key}    # why youtube/variant failed" in alone
    assert f"phantoms dead-letters replay {key}" in alone


def test_an_approval_says_what_comes_next_and_when(database: Engine) -> None:
    later = datetime.now(UTC) + timedelta(days=3)
    now, then = rendered(database, "Sea"), rendered(database, "Lake", "--publish-at", later.isoformat())
    assert f"  next: `phantoms up` posts it, at once\n  follow it: phantoms show {now}\n" in phantoms("approve", now).stdout
    there = later.astimezone()
    said = f"not before {there:%Y-%m-%d %H:%M} {there.tzname()}\n  follow it: phantoms show {then}\n"
    assert said in phantoms("approve", then).stdout


def test_an_import_ends_with_its_keys_and_a_next_step(database: Engine, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("title\n" + "".join(f"Fact {n}\n" for n in range(25)))
    lines = phantoms("import", str(tmp_path / "b.csv")).stdout.splitlines()
    keys = [line.strip() for line in lines if line.startswith("  fact-")]
    assert (lines[0], len(keys)) == ("25 added, 0 refused", 20)
    assert lines[-4] == "  ... and 5 more; --json lists all"
    assert lines[-3:-1] == ["  follow them: phantoms status", f"  one of them: phantoms show {keys[0]}"]
    assert "phantoms approve" in lines[-1]


# --- Build 10: --json, exit codes, completion


def commands(group: Any = None, before: tuple[str, ...] = ()) -> Iterator[tuple[list[str], Any]]:
    for name, command in (group or whole_program()).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*before, name))
        else:
            yield [*before, name], command


def test_every_command_that_prints_takes_json() -> None:
    without = {names[0] for names, command in commands() if not any("--json" in p.opts for p in command.params)}
    assert without == WITHOUT_JSON


def test_the_exit_codes_are_those_of_the_guide(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {phantoms("status").exit_code, phantoms("show", "nothing").exit_code, phantoms("approve", "--nonsense").exit_code}
    assert found == {0, 2}

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("phantoms_dagster.store.catalogue.Catalogue.find", interrupted)
        found.add(phantoms("show", "sea").exit_code)
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", "postgresql://u:p@127.0.0.1:1/db")
    found.add(phantoms("status").exit_code)
    table = GUIDE.split("| exit code | |")[1].split("\n\n")[0]
    assert found == {0, 1, 2, 130}
    # The last is that of a reader who goes away early: `test_cli_program` runs the command in a pipe.
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == {*found, 141}


def test_every_argument_that_is_a_video_is_completed() -> None:
    named = {"video", "videos", "which"}
    missing = [
        names
        for names, command in commands()
        for parameter in command.params
        if parameter.name in named and parameter.param_type_name == "argument" and not parameter.shell_complete
    ]
    assert missing == []


def test_json_of_commands_that_decide_and_change(database: Engine) -> None:
    key, other = rendered(database, "Sea"), rendered(database, "Lake")
    first = json.loads(phantoms("approve", key, "--json").stdout)
    assert (first["decided"][0]["key"], first["refused"]) == (key, [])
    assert datetime.fromisoformat(first["decided"][0]["goes_out"]).tzinfo is not None
    assert json.loads(phantoms("reject", other, "--json").stdout)["decided"][0]["approved"] is False
    assert json.loads(phantoms("edit", key, "--priority", "0", "--json").stdout)["changed"] == {"priority": {"old": 5, "new": 0}}
    refused = phantoms("retire", other, "--json")
    assert (refused.exit_code, json.loads(refused.stdout)["refused"][0]["key"]) == (2, other)
    assert json.loads(phantoms("unretire", key, "--json").stdout) == {"taken_back": [], "not_retired": [key]}
    asked = phantoms("retry", key, "--from", "script", "--json")
    assert (asked.exit_code, asked.stdout, "add --yes" in asked.stderr) == (2, "", True)
    assert json.loads(phantoms("retry", key, "--from", "script", "--yes", "--json").stdout)["stage"] == "script"
    assert json.loads(phantoms("breakers", "trip", "tiktok", "--why", "x", "--json").stdout)["state"] == "open"
    assert json.loads(phantoms("breakers", "reset", "tiktok", "--why", "x", "--json").stdout)["state"] == "closed"


def test_a_shell_completes_the_keys_that_begin_with_what_is_typed_else_those_that_contain_it(database: Engine) -> None:
    hearts, honey = added(LONG), added("Honey")
    assert complete_video("") == [honey, hearts]
    assert complete_video("why-oct") == [hearts]
    assert complete_video("octopuses") == [hearts]
    assert complete_video("lake") == []


def test_the_completion_that_a_shell_asks_for_answers_with_keys(database: Engine) -> None:
    key = added(LONG)
    asked = {"_PHANTOMS_COMPLETE": "complete_bash", "COMP_WORDS": "phantoms show why-oct", "COMP_CWORD": "2"}
    program = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        "import sys; sys.argv[0] = 'phantoms'; from phantoms_dagster.cli.main import main; main()",
    ]
    done = subprocess.run(program, env={**os.environ, **asked}, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout.split(), done.stderr) == ([key], "")


@pytest.mark.parametrize("url", ["", "postgresql://u:p@127.0.0.1:1/db", "nonsense"])
def test_a_shell_completes_nothing_and_prints_nothing_without_a_database(
    database: Engine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], url: str
) -> None:
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", url)
    assert complete_video("a") == []
    assert capfd.readouterr() == ("", "")


# --- Build 7 and 10: open, logs


def media_file(tmp_path: Path) -> Path:
    sha256 = sha_of("Sea")
    path = tmp_path / "media" / sha256[:2] / f"{sha256[2:]}.mp4"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"data")
    return path


def test_open_starts_the_systems_player_with_the_video(database: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key, path = rendered(database, "Sea"), media_file(tmp_path)
    starter = tmp_path / "bin" / "xdg-open"
    starter.parent.mkdir()
    starter.write_text(f'#!/bin/sh\nprintf %s "$1" > {tmp_path}/opened\n')
    starter.chmod(0o755)
    monkeypatch.setenv("PATH", f"{starter.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("sys.platform", "linux")
    shown = phantoms("open", "sea").stdout
    assert shown.splitlines() == [str(path), "  opened in the system's player"]
    assert (tmp_path / "opened").read_text() == str(path)
    assert json.loads(phantoms("open", key, "--json").stdout) == {"key": key, "stage": "rendered_video", "path": str(path)}


def test_open_prints_the_path_where_there_is_neither_player_nor_browser(
    database: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rendered(database, "Sea")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    path = media_file(tmp_path)
    result = phantoms("open", "sea")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, str(path))
    assert "no player" in result.stdout


def test_open_says_why_there_is_no_video(database: Engine) -> None:
    key = added("Sea")
    assert f"there is no video file yet: rendered_video of {key} is blocked" in phantoms("open", key).stderr
    assert "has no" in phantoms("open", key, "--platform", "tiktok").stderr
    lost = rendered(database, "Lake")
    missing = phantoms("open", lost)
    assert (missing.exit_code, "Traceback" in missing.output) == (2, False)


def test_logs_shows_one_videos_lines_of_all_processes(database: Engine, tmp_path: Path) -> None:
    key = added("Sea")
    nothing = phantoms("logs", key)
    assert (nothing.exit_code, "there are no log files in" in nothing.stderr) == (2, True)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "workers.log").write_text(
        f"2026-11-26T10:00:02Z INFO a: [made] video={key}\n2026-11-26T10:00:03Z INFO a: x\n"
    )
    (tmp_path / "logs" / "daemon.log").write_text(f"2026-11-26 10:00:01 +0000 - dagster - INFO - {key}\n")
    shown = phantoms("logs", "sea").stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["daemon", "workers"]
    assert "[made]" in shown[1]
    rows = [json.loads(line) for line in phantoms("logs", "sea", "--json").stdout.splitlines()]
    assert [(row["process"], row["at"]) for row in rows] == [
        ("daemon", "2026-11-26T10:00:01+00:00"),
        ("workers", "2026-11-26T10:00:02+00:00"),
    ]


@pytest.mark.parametrize(
    ("url", "why"), [("postgresql://u:p@127.0.0.1:1/db", "the database does not answer"), ("", "no database is running")]
)
def test_logs_say_what_they_wait_for_while_the_database_is_away(
    database: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, why: str
) -> None:
    """Part of a key was taken for a whole one, and `--follow` waited silently for its lines."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "workers.log").write_text("2026-11-26T10:00:02Z INFO a: video=sea-1\n")
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", url)
    asked = phantoms("logs", "sea", width=200)
    assert (asked.exit_code, asked.stdout) == (0, "")
    assert f"{why}, so keys cannot be looked up: using sea as the whole key" in asked.stderr
    assert "no log lines about sea so far; --follow waits for the first one" in asked.stderr

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    assert (
        "no log lines about sea so far; waiting for the first one until Ctrl-C"
        in phantoms("logs", "sea", "--follow", width=200).stderr
    )


def test_logs_are_read_without_a_database_by_the_whole_key(
    database: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "workers.log").write_text("2026-11-26T10:00:02Z INFO a: video=sea-1\n")
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", "postgresql://u:p@127.0.0.1:1/db")
    result = phantoms("logs", "sea-1")
    assert (result.exit_code, result.stdout.split()[0]) == (0, "workers")
    assert "the database does not answer" in result.stderr
