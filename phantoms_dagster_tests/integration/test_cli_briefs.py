"""`phantoms add` and `phantoms import` against a real database."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner, Result

from phantoms_dagster.cli.main import app
from phantoms_dagster.store.engine import engine
from phantoms_dagster_tests.integration.stage_world import open_world


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str) -> str:
    """A data directory and a database; its URL."""
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", database_url)
    return database_url


def phantoms(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert max((len(line) for line in result.output.splitlines() if not line.startswith("{")), default=0) <= 1_000
    return result


def titles(url: str) -> list[str]:
    database = engine(url)
    with database.connect() as connection:
        found = list(connection.execute(text("SELECT title FROM phantoms.videos ORDER BY id")).scalars())
    database.dispose()
    return found


def test_add_tells_the_key_and_adds_a_brief_once(world: str) -> None:
    first = phantoms("add", "Why octopuses have three hearts", "--fact", "Two pump.", "--priority", "0")
    assert first.exit_code == 0
    key = first.stdout.split()[1]
    assert f"phantoms show {key}" in first.stdout
    again = phantoms("add", "Why octopuses have  three hearts", "--fact", "Two pump.")
    assert (again.exit_code, again.stdout.splitlines()[0]) == (0, f"this brief already exists: {key}")
    assert f"phantoms edit {key}" in again.stdout
    assert titles(world) == ["Why octopuses have three hearts"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["  "], "title is missing"),
        (["x" * 100_000], "title: should have at most 200 characters"),
        (["A", "--publish-at", "soon"], "bad date 'soon'; write publish_at like"),
        (["A", "--platforms", "vimeo"], "unknown platform 'vimeo'"),
        (["A", "--channel", "none"], "unknown channel 'none'; the channels are curious"),
        (["A", "--angle", "\x1b[2J"], "angle contains the control character U+001B"),
    ],
)
def test_add_says_what_is_wrong(world: str, arguments: list[str], reason: str) -> None:
    result = phantoms("add", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {reason}")
    assert titles(world) == []


def test_import_names_bad_rows_takes_good_ones_and_exits_with_2(world: str, tmp_path: Path) -> None:
    phantoms("add", "Known")
    file = tmp_path / "briefs.csv"
    rows = [b"title,platforms", b"New,", b"Known,", b"New,", b"Bad,vimeo", b"x" * 10_000_000 + b",", b"\xff,"]
    file.write_bytes(b"\n".join(rows))
    result = phantoms("import", str(file))
    assert result.exit_code == 2
    assert result.stdout.startswith("1 added, 5 refused\n  to change existing briefs, add --update\n")
    lines = result.stderr.splitlines()
    assert [line.split(": ", 1)[0] for line in lines] == [f"{file}:{n}" for n in (3, 4, 5, 6, 7)]
    assert "duplicate: this brief is already known-2" in lines[0]
    assert "duplicate: the same brief is already on line 2" in lines[1]
    assert titles(world) == ["Known", "New"]


@pytest.mark.parametrize("name", ["b.jsonl", "b.yaml"])
def test_importing_a_file_twice_takes_it_once(world: str, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"title": "A"}\n{"title": "B"}\n' if name == "b.jsonl" else "- title: A\n- title: B\n")
    assert phantoms("import", str(tmp_path / name)).stdout.startswith("2 added, 0 refused\n  a-")
    again = phantoms("import", str(tmp_path / name))
    assert (again.exit_code, again.stdout.splitlines()[0]) == (2, "0 added, 2 refused")
    assert titles(world) == ["A", "B"]


def test_an_import_with_update_gives_stored_briefs_what_the_file_says_and_nothing_else(world: str, tmp_path: Path) -> None:
    file = tmp_path / "b.csv"
    file.write_text("title,publish_at,platforms,priority\nA,2027-01-01T10:00Z,youtube,1\nB,,youtube,\n")
    phantoms("import", str(file))
    file.write_text("title,publish_at,platforms,priority\nA,2027-01-02T10:00Z,,\nB,,youtube,\nC,,,\n")
    result = phantoms("import", str(file), "--update")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "1 added, 1 updated, 1 unchanged, 0 refused")
    database = engine(world)
    with database.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT title, to_char(publish_at AT TIME ZONE 'UTC', 'MM-DD HH24:MI'), platforms, priority "
                "FROM phantoms.videos ORDER BY id"
            )
        ).all()
    database.dispose()
    assert [tuple(row) for row in rows[:2]] == [("A", "01-02 10:00", ["youtube"], 1), ("B", None, ["youtube"], 5)]
    assert titles(world) == ["A", "B", "C"]


def test_edit_says_what_changed_and_what_to_do_next(world: str) -> None:
    key = phantoms("add", "A", "--platforms", "youtube").stdout.split()[1]
    result = phantoms("edit", key, "--publish-at", "2027-01-02T10:00+01:00", "--priority", "0", "--platforms", "tiktok,youtube")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        key,
        "  platforms: youtube -> tiktok, youtube",
        "  publish_at: none -> 2027-01-02 09:00 UTC",
        "  priority: 5 -> 0",
    ]
    assert "publish_at: 2027-01-02 09:00 UTC -> none" in phantoms("edit", key, "--publish-at", "now").stdout
    assert "nothing changed" in phantoms("edit", key, "--priority", "0").stdout


def test_edit_tells_what_the_calendar_would_have_asked_about(world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHANTOMS_POOLS", '{"publish_youtube": {"daily": [1, "America/Los_Angeles"]}}')
    phantoms("add", "Why bees dance", "--publish-at", "2031-05-04T12:00")
    key = phantoms("add", "How eels travel", "--platforms", "youtube").stdout.split()[1]
    taken = " ".join(phantoms("edit", key, "--publish-at", "2031-05-04T12:10").stdout.split())
    assert "publish_at: none -> 2031-05-04 12:10 UTC" in taken
    assert "minutes from “Why bees dance”, which goes out at" in taken
    assert "YouTube's quota is used up on Sun 4 May (America/Los_Angeles): 1 of 1 posts." in taken
    notes = json.loads(phantoms("edit", key, "--publish-at", "2020-01-01T00:00", "--json").stdout)["notes"]
    assert any(note.startswith("That time is past") for note in notes)
    assert "That slot" not in phantoms("edit", key, "--publish-at", "2031-07-01T12:00").stdout
    assert json.loads(phantoms("edit", key, "--publish-at", "now", "--json").stdout)["notes"] == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "nothing to change; give --title"),
        (["--publish-at", "soon"], "bad date 'soon'"),
        (["--platforms", "vimeo"], "unknown platform 'vimeo'"),
        (["--title", "x" * 300], "title: should have at most 200 characters"),
        (["--title", "Taken"], "already has this brief; two videos cannot have the same"),
    ],
)
def test_edit_says_what_is_wrong_and_changes_nothing(world: str, arguments: list[str], reason: str) -> None:
    phantoms("add", "Taken")
    key = phantoms("add", "A").stdout.split()[1]
    result = phantoms("edit", key, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert reason in result.stderr
    assert titles(world) == ["Taken", "A"]


async def test_edit_changes_the_words_of_the_posts_and_keeps_the_video(world: str) -> None:
    async with open_world(world) as made:
        [key] = made.add()
        await made.carry([key], "script", "voiceover", "rendered_video", "approval")
        result = await asyncio.to_thread(phantoms, "edit", key, "--caption", "Deeper.", "--hashtags", "sea,deep")
        assert result.exit_code == 0
        assert "caption: About the sea. -> Deeper." in result.stdout
        assert "hashtags: #sea -> #sea #deep" in result.stdout
        assert f"phantoms show {key}" in result.stdout
        assert (made.row(key, "rendered_video")["state"], made.row(key, "approval")["state"]) == ("done", "ready")
        both = await asyncio.to_thread(phantoms, "edit", key, "--caption", "Deepest.", "--priority", "1")
        assert both.exit_code == 2
        assert "in two separate commands" in both.output


def test_import_as_json_prints_one_object_and_nothing_else(world: str, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("title\nÄpfel\n,\nBirnen\n", encoding="utf-8")
    result = phantoms("import", str(tmp_path / "b.csv"), "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert (len(report["taken"]), report["good"], report["refused"]) == (2, 2, [])
    (tmp_path / "b.csv").write_text("title\nCherries\nA,B\n")
    report = json.loads(phantoms("import", str(tmp_path / "b.csv"), "--json").stdout)
    assert [r["line"] for r in report["refused"]] == [3]


def test_a_dry_run_needs_no_database_and_stores_nothing(world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", "")
    (tmp_path / "b.csv").write_text("title\nA\nB,b\n")
    result = phantoms("import", str(tmp_path / "b.csv"), "--dry-run")
    assert (result.exit_code, result.stdout) == (2, "1 valid, 1 refused\n")
    assert titles(world) == []


def test_a_thousand_refusals_do_not_flood_the_terminal(world: str, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("title\n" + "a,b\n" * 1_000)
    result = phantoms("import", str(tmp_path / "b.csv"))
    assert len(result.stderr.splitlines()) == 101
    assert result.stderr.splitlines()[-1] == "... and 900 more; --json lists all"


@pytest.mark.parametrize(
    ("name", "reason"), [(".", "is a folder"), ("none.csv", "there is no file"), ("b.txt", "unknown file type")]
)
def test_import_of_something_else_is_named(world: str, tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "b.txt").write_text("title\nA\n")
    result = phantoms("import", str(tmp_path / name))
    assert result.exit_code == 2
    assert reason in result.stderr


def test_a_broken_channels_file_is_named(world: str, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "channels.yaml").write_text("channels:\n  sea: {title: Sea}\n")
    result = phantoms("add", "A")
    assert result.exit_code == 2
    assert "channels.yaml: 2 mistakes" in result.stderr
    assert "line 2: channel 'sea': brand_voice: is missing; write it like" in result.stderr


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("language: de", "line 6: channel 'sea': language: the local voices speak only English"),
        ("language: English", "not a BCP 47 language code"),
        ("voice: nobody", "line 6: channel 'sea': voice: there is no voice 'nobody'; the voices are default, "),
        ("hashtags: [#fun, #facts]", 'write it like `hashtags: ["#fun", "#facts"]'),
    ],
)
def test_a_channel_that_cannot_be_spoken_or_written_is_refused_before_anything_is_taken(
    world: str, tmp_path: Path, setting: str, reason: str
) -> None:
    (tmp_path / "home" / "inbox").mkdir(parents=True)
    channel = "channels:\n  sea:\n    title: Sea\n    brand_voice: Calm.\n    accounts: {youtube: sea}\n"
    (tmp_path / "home" / "channels.yaml").write_text(f"{channel}    {setting}\n")
    (tmp_path / "b.csv").write_text("title\nA\n")
    for arguments in (["add", "A"], ["import", str(tmp_path / "b.csv")]):
        result = phantoms(*arguments)
        assert result.exit_code == 2
        assert reason in result.stderr
    assert titles(world) == []
