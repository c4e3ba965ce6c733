"""The next step after a decision is right in every state of a video, and no command in it is broken at any width."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner, Result

from phantoms_dagster.cli.main import app
from phantoms_dagster.store.engine import engine
from phantoms_dagster.wiring.up_lock import UpLock
from phantoms_dagster_tests.integration.test_cli_look_and_review import RENDERED, SCRIPT, VOICE, added, put, rendered
from phantoms_dagster_tests.terminal import shown_in_terminals, terminal

WATCH = [sys.executable, "-W", "ignore", "-c", "from phantoms_dagster.cli.entry import main; main()", "watch"]


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str) -> Iterator[Engine]:
    for name in [n for n in os.environ if n.startswith("PHANTOMS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", database_url)
    made = engine(database_url)
    yield made
    made.dispose()


def phantoms(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "100"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def posted(database: Engine, key: str, state: str = "published") -> None:
    values = {"key": key, "state": state}
    statement = (
        "INSERT INTO phantoms.posts (video_id, platform, account, state, marker, video_sha256, caption_sha256) "
        "SELECT id, 'youtube', 'main', :state, 'm', 'a', 'b' FROM phantoms.videos WHERE key = :key"
    )
    with database.begin() as connection:
        connection.execute(text(statement), values)


def test_a_rejection_before_the_post_is_out_says_how_to_make_the_video_again_and_that_works(database: Engine) -> None:
    key = rendered(database, "Hearts")
    put(database, key, "approval", "done", {"kind": "approval"})
    refused = phantoms("reject", key)
    assert refused.exit_code == 2
    assert (
        f"{key} is approved already. To take that back before it is posted: `phantoms retry {key} --from script`" in refused.stderr
    )
    assert phantoms("retry", key, "--from", "script", "--yes").exit_code == 0


@pytest.mark.parametrize("state", ["published", "confirmed", "uploading", "unknown"])
def test_a_rejection_after_the_post_is_out_promises_nothing(database: Engine, state: str) -> None:
    key = rendered(database, "Hearts")
    put(database, key, "approval", "done", {"kind": "approval"})
    posted(database, key, state)
    refused = phantoms("reject", key)
    assert refused.exit_code == 2
    told = " ".join(refused.stderr.split())
    assert f"{key} is approved already, and its post on YouTube is out or on its way: nothing here takes a post back" in told
    assert "retry" not in told


def test_what_was_given_up_is_not_decided_on_but_brought_back_first(database: Engine) -> None:
    key = rendered(database, "Hearts")
    put(database, key, "approval", "discarded")
    for command in ("approve", "reject"):
        refused = phantoms(command, key)
        assert refused.exit_code == 2
        assert f"{key} was given up; bring it back with `phantoms retry {key}`, then decide" in refused.stderr
        assert "next" not in refused.stdout
    assert f"bring it back with `phantoms retry {key}`" in phantoms("hold", key).stderr
    with database.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM phantoms.approvals")).scalar() == 0


def test_hold_and_unhold_say_what_comes_next_and_refusals_say_where_to_look(database: Engine) -> None:
    key = rendered(database, "Hearts")
    assert phantoms("hold", key).stdout.splitlines() == [f"on hold: {key}", f"  phantoms unhold {key}    # release it"]
    assert f"take it back with `phantoms unhold {key}`" in phantoms("approve", key).stderr
    assert phantoms("unhold", key).stdout.splitlines()[1].startswith(f"  phantoms show {key}")
    assert f"is not on hold; see `phantoms show {key}`" in phantoms("unhold", key).stderr
    put(database, key, "approval", "done", {"kind": "approval"})
    assert f"nothing left to hold; see `phantoms show {key}`" in phantoms("hold", key).stderr


def test_status_says_which_videos_are_on_hold_by_whom_and_how_to_take_them_back(database: Engine) -> None:
    key = rendered(database, "Hearts")
    phantoms("hold", key, "--note", "waits for the lawyer", "--reviewer", "Ada")
    shown = phantoms("status").stdout
    assert "on hold by Ada" in next(line for line in shown.splitlines() if line.startswith(key))
    assert "1 on hold, longest first:" in shown
    assert "waits for the lawyer" in shown
    assert f"    phantoms unhold {key}\n" in shown
    found = json.loads(phantoms("status", "--json").stdout)
    assert [(one["key"], one["by"]) for one in found["held"]] == [(key, "Ada")]
    assert found["videos"][0]["now"] == "on hold by Ada"


@pytest.mark.parametrize("everything", [False, True])
def test_an_approval_says_of_each_video_what_of_its_script_is_not_in_the_master(database: Engine, everything: bool) -> None:
    silent, plain = rendered(database, "Hearts"), rendered(database, "Honey", caption="Sweet and sticky")
    put(database, silent, "script", "done", {"kind": "script", "script": SCRIPT, "model": "m", "removed": ["\u2603 snow"]})
    put(database, silent, "voiceover", "done", {**VOICE, "unspoken": ["\u5fc3\u81d3"]})
    put(database, silent, "rendered_video", "done", {**RENDERED, "not_shown": ["\u1234"]})
    result = phantoms("approve", *(["--all"] if everything else [silent, plain]))
    assert result.exit_code == 0
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert warnings == [
        f"warning: {silent}: removed from the script: \u2603 snow",
        f"warning: {silent}: shown but not spoken: \u5fc3\u81d3",
        f"warning: {silent}: left out of the picture, because no font has it: \u1234",
    ]


def test_a_headline_that_the_voice_says_too_is_not_shown_twice(database: Engine) -> None:
    scenes = [
        {"on_screen_text": "THE THIRD HEART STOPS", "narration": "The third heart stops while it swims."},
        {"on_screen_text": "NINE BRAINS", "narration": "One brain is not enough."},
    ]
    key = rendered(database, "Hearts")
    put(database, key, "script", "done", {"kind": "script", "script": {**SCRIPT, "scenes": scenes}, "model": "m"})
    shown = " ".join(phantoms("show", key).stdout.split())
    assert "1. The third heart stops while it swims." in shown
    assert "2. NINE BRAINS One brain is not enough." in shown


def test_a_number_that_no_letter_can_have_is_repeated_as_it_was_typed(database: Engine) -> None:
    typed = "999999999999999999999"
    for command in (["show", typed], ["replay", typed], ["discard", typed, "--reason", "x"]):
        assert f"no dead letter {typed}; " in phantoms("dead-letters", *command).stderr


def test_an_empty_list_of_letters_speaks_of_a_filter_only_when_there_is_one(database: Engine) -> None:
    assert phantoms("dead-letters", "list").stdout == "no open dead letters\n"
    assert phantoms("dead-letters", "list", "--stage", "post").stdout.startswith("no open dead letters match; ")


def test_commands_say_that_up_is_starting_or_stopping_instead_of_that_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in os.environ if n.startswith("PHANTOMS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
    nothing = "no database is running here: start `phantoms up`"
    assert nothing in phantoms("status").stderr
    mark = UpLock(tmp_path)
    mark.say("starting")
    for command in (["status"], ["watch"], ["approve", "--all"], ["worker"], ["breakers"], ["metrics"]):
        assert "`phantoms up` is still starting here: try again when it shows its addresses" in phantoms(*command).stderr, command
    assert "`phantoms up` is starting here" in phantoms("doctor").stdout
    mark.say("stopping")
    assert "`phantoms up` is stopping here: start it again when it has ended" in phantoms("status").stderr
    mark.close()
    assert nothing in phantoms("status").stderr


def test_every_command_in_an_error_stays_whole_in_terminals_of_any_width(database: Engine) -> None:
    early, done = added("Why octopuses have three hearts and the eels none"), rendered(database, "How honey stays good for ages")
    put(database, done, "approval", "done", {"kind": "approval"})
    commands = [["approve", early], ["open", early], ["reject", done], ["unhold", done], ["retry", done], ["show", "nothing"]]
    commands += [["edit", early, "--caption", "A new caption of the posts"], ["dead-letters", "show", "5"]]
    wanted = re.compile(r"`(phantoms [^`]*)`")
    for shown in shown_in_terminals(commands, dict(os.environ), (60, 80, 120)):
        told = " ".join(shown.text.split())
        asked = wanted.findall(told)
        assert asked, shown.text
        for command in asked:
            line = next((line for line in shown.text.splitlines() if f"`{command}`" in line), None)
            assert line is not None, f"{command} is broken at {shown.width} columns:\n{shown.text}"


def test_watch_says_at_once_what_it_does_and_ends_with_0_when_it_is_interrupted_before_its_screen_is_there(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A server that never answers: the look that comes before the screen hangs.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("PHANTOMS_DATABASE_URL", f"postgresql://u:p@127.0.0.1:{port}/db?connect_timeout=60")
        _interrupted_at_once()


def _interrupted_at_once() -> None:
    with terminal(WATCH, dict(os.environ), columns=80) as screen:
        screen.until("reading the database")
        screen.process.send_signal(signal.SIGINT)
        screen.rest(60)
        assert screen.process.returncode == 0
        assert "Traceback" not in screen.text
