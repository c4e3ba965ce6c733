"""The documents' commands, every help and `phantoms watch` in a pseudo-terminal of 80 and of 120 columns."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook
from rich.cells import cell_len
from sqlalchemy import text

from phantoms_dagster.store.engine import engine
from phantoms_dagster_tests.program import whole_program
from phantoms_dagster_tests.terminal import Shown, shown_in_terminals, terminal, whole
from phantoms_dagster_tests.unit.test_readme import TEXT, command_lines

WIDTHS = (80, 120)
# They stay running, or make a machine ready; their help is looked at all the same.
STAYING = {"up", "demo", "sandbox", "worker", "metrics", "init", "watch", "desk", "users", "webhooks"}  # of users: a password
WATCH = [sys.executable, "-W", "ignore", "-m", "phantoms_dagster.cli.main", "watch"]
PAGES = ("README.md", "guide.md", "operations.md", "sandbox.md")
SCRIPT = {"hook": "Listen", "scenes": [{"narration": "Two pump blood.", "on_screen_text": "THREE HEARTS"}], "title": "Hearts"} | {
    "caption": "Why?",
    "hashtags": ["#sea"],
}
FILE = {"sha256": "ab" * 32, "size": 4, "suffix": ".mp4"}
PROBE = {"container": "mp4", "seconds": 30, "size": 1, "width": 1080, "height": 1920, "fps": 30, "video_codec": "h264"} | {
    "pixel_format": "yuv420p",
    "bit_rate": 1,
    "moov_first": True,
}
RENDERED = {"kind": "rendered_video", "video": FILE, "thumbnail": FILE, "probe": PROBE, "renderer": "local", "render_id": "1"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str, redis_url: str) -> dict[str, str]:
    """A world in which every command of the documents has something to say: a video to review, one that failed, two accounts."""
    for name in [n for n in os.environ if n.startswith("PHANTOMS_")]:
        monkeypatch.delenv(name)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": tmp_path, "DATABASE_URL": database_url, "REDIS_URL": redis_url}.items():
        monkeypatch.setenv(f"PHANTOMS_{name}", str(value))
    monkeypatch.setenv("PHANTOMS_SANDBOX_URL", "http://127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    book = Workbook()
    sheet = book.create_sheet("Briefs", 0)
    sheet.append(["title"])
    sheet.append(["A title of a brief in a spreadsheet that is long"])
    book.save(tmp_path / "briefs.xlsx")
    (tmp_path / "logs").mkdir()
    return dict(os.environ)


def prepare(environment: dict[str, str], tmp_path: Path) -> list[str]:
    """The keys of the world's videos."""
    brief = ["add", "Why octopuses have three hearts", "--fact", "The third heart stops beating while it swims."]
    made = shown_in_terminals(
        [[*brief, "--json"], ["add", "How honey stays good for thousands of years", "--json"]], environment, [80]
    )
    keys = [json.loads(shown.text.strip())["key"] for shown in made]
    outputs: dict[str, Any] = {
        "script": {"kind": "script", "script": SCRIPT, "model": "m"},
        "voiceover": None,
        "rendered_video": RENDERED,
    }
    outputs["voiceover"] = {"kind": "voiceover", "audio": FILE, "seconds": 1.0, "sentences": [], "voice": "v"}
    which = "stage = :stage AND video_id = (SELECT id FROM phantoms.videos WHERE key = :key)"
    database = engine(environment["PHANTOMS_DATABASE_URL"])
    with database.begin() as connection:
        for stage, output in outputs.items():
            values = {"stage": stage, "key": keys[0], "output": json.dumps(output)}
            connection.execute(text(f"UPDATE phantoms.stages SET state = 'done', output = :output WHERE {which}"), values)
        statement = f"UPDATE phantoms.stages SET state = 'ready', ready_at = clock_timestamp() WHERE {which}"
        connection.execute(text(statement), {"stage": "approval", "key": keys[0]})
        statement = f"UPDATE phantoms.stages SET state = 'failed', reason = 'no' WHERE {which}"
        connection.execute(text(statement), {"stage": "instagram/variant", "key": keys[1]})
        connection.execute(
            text(
                "INSERT INTO phantoms.dead_letters "
                "(video_id, stage, revision, provider, error_class, code, message, evidence, attempts) "
                "SELECT id, 'instagram/variant', 1, 'instagram', 'permanent', '400', 'no', '{}', '[]' "
                "FROM phantoms.videos WHERE key = :key"
            ),
            {"key": keys[1]},
        )
    database.dispose()
    log = "".join(f"2026-11-26T10:00:0{n}.000Z INFO a.b: made it video={key}\n" for n, key in enumerate(keys))
    (tmp_path / "logs" / "workers.log").write_text(log)
    video = tmp_path / "media" / "ab" / f"{'ab' * 31}.mp4"
    video.parent.mkdir(parents=True)
    video.write_bytes(b"video")
    return keys


def helps() -> list[list[str]]:
    group: Any = whole_program()
    found = [["--help"]]
    for name, command in group.commands.items():
        found.append([name, "--help"])
        found += [[name, inner, "--help"] for inner in getattr(command, "commands", {})]
    return found


def check(shown: Shown, keys: list[str]) -> None:
    about = f"phantoms {' '.join(shown.command)} at {shown.width} columns:\n{shown.text}"
    assert "Traceback" not in shown.text, about
    assert "\u2026" not in shown.text, f"cut: {about}"
    assert shown.text.strip(), f"nothing is said: {about}"
    # Lines of a log are as long as they are.
    for key in () if shown.command[0] == "logs" else keys:
        assert whole(shown, key), f"{key} is broken: {about}"


def test_the_commands_of_the_documents_and_every_help_fit_terminals_of_80_and_120_columns(
    environment: dict[str, str], tmp_path: Path
) -> None:
    keys = prepare(environment, tmp_path)
    listing = [["status"], ["dead-letters", "list"], ["dead-letters", "show", "1"], ["show", keys[0]], ["show", keys[1]]]
    told = [call for page in PAGES for call in command_lines(TEXT[page])]
    once = list(map(list, dict.fromkeys(tuple(c) for c in told if c and not c[0].startswith("-") and c[0] not in STAYING)))
    commands = [*helps(), *listing, *(call for call in once if not {"VIDEO", "VIDEO`"} & set(call)), *listing]
    found = shown_in_terminals(commands, environment, WIDTHS)
    assert len(found) == len(commands) * len(WIDTHS)
    for shown in found:
        check(shown, keys)
        if "--help" in shown.command:
            assert shown.exit_code == 0
            assert max(cell_len(line.rstrip()) for line in shown.text.splitlines()) <= shown.width, shown.text
    # Each listing shows the keys that it is about, so that the checks above have something to look at.
    listed = {shown.command[0] for shown in found if any(key in shown.text for key in keys)}
    assert listed >= {"status", "show", "dead-letters", "approve", "logs", "add", "edit"}


@pytest.mark.parametrize("columns", WIDTHS)
def test_watch_shows_what_waits_takes_keys_and_leaves_the_terminal_as_it_was(
    environment: dict[str, str], tmp_path: Path, columns: int
) -> None:
    keys = prepare(environment, tmp_path)
    with terminal(WATCH, environment, columns=columns, lines=30) as screen:
        before = screen.modes()
        screen.until("q: quit")
        for part in ("1 to review", f"> {keys[0]}", "phantoms dead-letters list --stage instagram/variant"):
            screen.until(part)
        screen.type("a")
        screen.until(f"approve {keys[0]}?")
        screen.type("n")
        screen.until("was not approved")
        screen.type("ay")
        screen.until(f"approved {keys[0]}")
        screen.type("q")
        screen.rest(60)
        assert (screen.process.returncode, screen.modes()) == (0, before)
        assert screen.text.rstrip().endswith("\x1b[?25h") or "\x1b[?1049l" in screen.text
        assert "Traceback" not in screen.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_ends_cleanly_on_ctrl_c_and_on_a_signal(environment: dict[str, str], tmp_path: Path, number: signal.Signals) -> None:
    with terminal(WATCH, environment, columns=80) as screen:
        before = screen.modes()
        screen.until("q: quit")
        screen.process.send_signal(number)
        screen.rest(60)
        assert (screen.process.returncode, screen.modes()) == (0, before)
        assert "\x1b[?1049l" in screen.text
        assert "Traceback" not in screen.text
