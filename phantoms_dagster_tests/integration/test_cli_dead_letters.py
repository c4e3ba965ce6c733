"""`phantoms dead-letters` against a real database: what a person sees, gives and gets back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner, Result

from phantoms_dagster.cli.dead_letters import EXAMPLES, dead_letters, moment
from phantoms_dagster.cli.main import app
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.store.engine import engine


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
    assert "Traceback" not in result.output
    return result


def letters(*arguments: str, width: int = 100) -> Result:
    return phantoms("dead-letters", *arguments, width=width)


def dead(
    database: Engine,
    title: str,
    *,
    stage: str = "script",
    error_class: str = "transient",
    provider: str | None = "openai",
    message: str = "openai answered 503",
    hours_ago: int = 0,
) -> tuple[str, str]:
    """A video that failed: its key and its letter's number."""
    key = phantoms("add", title, "--platforms", "youtube").stdout.split()[1]
    values = {"key": key, "stage": stage, "class": error_class, "provider": provider, "message": message, "hours": hours_ago}
    values["attempts"] = json.dumps([{"at": "2026-11-22T12:00:00+00:00", "class": error_class, "code": "503", "message": message}])
    with database.begin() as connection:
        connection.execute(
            text(
                """UPDATE phantoms.stages SET state = 'failed', attempts = 5, error_class = :class, reason = :message
                WHERE stage = :stage AND video_id = (SELECT id FROM phantoms.videos WHERE key = :key)"""
            ),
            values,
        )
        letter = connection.execute(
            text(
                """INSERT INTO phantoms.dead_letters
                    (video_id, stage, revision, provider, error_class, code, message, evidence, attempts, run_id, created_at)
                SELECT id, :stage, 1, :provider, :class, '503', :message, '{"status": 503, "body": "[down] \\u001b[2J"}',
                    CAST(:attempts AS jsonb), 'run-1', now() - make_interval(hours => :hours)
                FROM phantoms.videos WHERE key = :key RETURNING id"""
            ),
            values,
        ).scalar_one()
    return key, str(letter)


def state(database: Engine, key: str, stage: str = "script") -> str:
    with database.connect() as connection:
        return str(
            connection.execute(
                text("SELECT state FROM phantoms.stages JOIN phantoms.videos v ON v.id = video_id WHERE key = :k AND stage = :s"),
                {"k": key, "s": stage},
            ).scalar_one()
        )


# --- help and mistakes


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_commands_help_teaches_with_examples(name: str) -> None:
    result = letters(name, "--help", width=140)
    assert result.exit_code == 0
    for example in EXAMPLES[name]:
        assert example.startswith(f"phantoms dead-letters {name}")
        assert example in result.stdout


def test_there_are_examples_for_every_command() -> None:
    assert {c.name or getattr(c.callback, "__name__", "") for c in dead_letters.registered_commands} == set(EXAMPLES)
    assert "dead-letters" in phantoms("--help").output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["replay"], "give letters, videos, filters or --all"),
        (["discard", "--reason", "x"], "give letters, videos, filters or --all"),
        (["replay", "1", "--all"], "give either letters or --all"),
        (["replay", "99"], "no dead letter 99"),
        (["replay", "9" * 25], "no dead letter"),
        (["replay", "lake"], "no video 'lake'"),
        (["replay", "--all", "--from", "nowhere"], "unknown stage 'nowhere'; the stages are script, "),
        (["replay", "--all", "--from", "youtube/post"], "nothing starts over from youtube/post"),
        (["replay", "--stage", "posts"], "unknown stage 'posts'"),
        (["replay", "--class", "bad"], "there is no class 'bad'; the classes are transient, permanent"),
        (["list", "--since", "yesterday"], "--since 'yesterday' is not a time; give 30m, 6h"),
        (["list", "--state", "closed"], "there is no state 'closed'; the states are open, replayed, discarded"),
        (["show", "99"], "no dead letter 99; `phantoms dead-letters list --state all` lists them"),
        (["show", "lake"], "no video 'lake'; `phantoms status` lists them"),
    ],
)
def test_what_cannot_be_meant_is_said_and_changes_nothing(database: Engine, arguments: list[str], said: str) -> None:
    key, _ = dead(database, "Sea")
    result = letters(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert state(database, key) == "failed"


def test_a_mistyped_name_among_good_ones_leaves_all_as_they_are(database: Engine) -> None:
    key, number = dead(database, "Sea")
    assert letters("replay", number, "99").exit_code == 2
    assert letters("discard", number, "lake", "--reason", "x").exit_code == 2
    assert state(database, key) == "failed"


def test_a_database_that_does_not_answer_is_a_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", "postgresql://u:5ecret@127.0.0.1:1/db")
    for command in (["list"], ["show", "1"], ["replay", "--all"], ["discard", "1", "--reason", "x"]):
        result = letters(*command)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("error: PostgreSQL does not answer")
        assert "5ecret" not in result.output


# --- looking


def test_no_letters_is_said_plainly(database: Engine) -> None:
    assert letters("list").stdout == "no open dead letters\n"
    assert letters("list", "--state", "all").stdout == "no dead letters\n"
    assert letters("replay", "--all").stdout == "replayed 0\n"
    assert json.loads(letters("list", "--json").stdout) == {"total": 0, "letters": []}


@pytest.mark.parametrize("width", [40, 80, 140])
def test_the_list_names_videos_and_what_they_have_in_common(database: Engine, width: int) -> None:
    first, _ = dead(database, "One", message="[bold] down")
    second, number = dead(database, "Two", provider=None, error_class="internal")
    shown = letters("list", width=width).stdout
    assert first in shown.replace("\n", "")
    assert second in shown.replace("\n", "")
    assert "1  script transient openai" in shown
    assert "1  script internal\n" in shown
    assert f"phantoms dead-letters show {number}" in shown
    assert ("[bold] down" in shown) == (width >= 110)


def test_the_list_is_narrowed_by_every_filter_and_says_what_it_left_out(database: Engine) -> None:
    old, _ = dead(database, "Old", hours_ago=30)
    new, _ = dead(database, "New", provider="shotstack", error_class="rejected")

    def keys(*filters: str) -> list[str]:
        return [letter["key"] for letter in json.loads(letters("list", "--json", *filters).stdout)["letters"]]

    assert keys() == [new, old]
    assert keys("--since", "24h") == [new]
    assert keys("--provider", "openai") == [old]
    assert keys("--class", "rejected", "--stage", "script") == [new]
    assert keys("--stage", "post") == []
    assert json.loads(letters("list", "--json", "--limit", "1").stdout)["total"] == 2
    assert "... and 1 more; --limit 2 lists all" in letters("list", "--limit", "1").stdout


def test_a_letter_shows_its_cause_the_answer_and_every_try_as_they_were(database: Engine) -> None:
    key, number = dead(database, "Sea", message="bad [key] " + "x" * 200)
    flat = "".join(letters("show", number, width=80).stdout.split())
    for part in (key, "script,revision1,nowfailed", "transientopenai503", "bad[key]" + "x" * 200, "[down]\ufffd[2J", "attempt1"):
        assert part in flat
    assert f"phantoms dead-letters replay {number}" in letters("show", "sea").stdout
    [found] = json.loads(letters("show", "sea", "--json").stdout)["letters"]
    assert (found["id"], found["evidence"]["status"], found["attempts"][0]["code"]) == (int(number), 503, "503")


def test_a_video_without_letters_says_so(database: Engine) -> None:
    key = phantoms("add", "Fine", "--platforms", "youtube").stdout.split()[1]
    assert letters("show", "fine").stdout == f"{key} has no dead letters\n"


# --- replaying


def test_replaying_everything_drains_to_zero_and_sums_up(database: Engine) -> None:
    keys = [dead(database, f"Sea {n}")[0] for n in range(3)] + [dead(database, "Lake", provider="shotstack")[0]]
    result = letters("replay", "--all", "--by", "ann")
    assert result.stdout.splitlines() == ["     3  script transient openai", "     1  script transient shotstack", "replayed 4"]
    assert (result.exit_code, result.stderr) == (0, "")
    assert {state(database, key) for key in keys} == {"ready"}
    assert letters("list").stdout == "no open dead letters\n"
    assert {letter["closed_by"] for letter in json.loads(letters("list", "--state", "replayed", "--json").stdout)["letters"]} == {
        "ann"
    }


def test_letters_are_replayed_by_number_video_or_filter(database: Engine) -> None:
    (one, number), (two, _), (three, _), (four, _) = (dead(database, title) for title in ("One", "Two", "Three", "Four"))
    assert letters("replay", number, "two").stdout.endswith("replayed 2\n")
    assert [state(database, key) for key in (one, two, three)] == ["ready", "ready", "failed"]
    assert letters("replay", "three", "--stage", "voiceover").stdout == "replayed 0\n"
    assert letters("replay", "--class", "transient", "--since", "1h", "--provider", "openai").stdout.endswith("replayed 2\n")
    assert [state(database, key) for key in (three, four)] == ["ready", "ready"]


def test_what_cannot_be_replayed_is_named_and_the_others_are_replayed(database: Engine) -> None:
    (_, first), (second_key, second) = dead(database, "One"), dead(database, "Two")
    letters("replay", first)
    result = letters("replay", first, second, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 2
    assert [letter["key"] for letter in found["replayed"]] == [second_key]
    assert [(r["id"], r["reason"]) for r in found["refused"]] == [(int(first), "it was replayed before")]
    again = letters("replay", first)
    assert (again.exit_code, again.stdout) == (2, "replayed 0, refused 1\n")
    assert "it was replayed before" in again.stderr


def test_a_letter_is_replayed_from_an_earlier_stage(database: Engine) -> None:
    key, number = dead(database, "Sea", stage="voiceover")
    with database.begin() as connection:
        connection.execute(text("UPDATE phantoms.stages SET state = 'done' WHERE stage = 'script'"))
    assert letters("replay", number, "--from", "script").stdout.endswith("replayed 1\n")
    assert (state(database, key), state(database, key, "voiceover")) == ("ready", "blocked")


# --- discarding


@pytest.mark.parametrize("reason", [[], ["--reason", ""], ["--reason", "  "]])
def test_discarding_asks_for_a_reason(database: Engine, reason: list[str]) -> None:
    key, number = dead(database, "Sea")
    result = letters("discard", number, *reason)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "a discard needs a reason: --reason" in result.stderr
    assert state(database, key) == "failed"


def test_discarding_keeps_the_record_and_a_replay_by_number_takes_it_back(database: Engine) -> None:
    key, number = dead(database, "Sea")
    assert letters("discard", number, "--reason", "not true any more", "--by", "ann").stdout.endswith("discarded 1\n")
    assert state(database, key) == "discarded"
    [kept] = json.loads(letters("list", "--state", "discarded", "--json").stdout)["letters"]
    assert (kept["id"], kept["closed_by"], kept["closed_reason"]) == (int(number), "ann", "not true any more")
    assert kept["closed_at"]
    assert "not true any more" in letters("show", number).stdout
    assert letters("replay", "--all").stdout == "replayed 0\n"
    assert letters("replay", number).stdout.endswith("replayed 1\n")
    assert state(database, key) == "ready"


# --- times


def test_since_is_a_time_ago_or_a_time() -> None:
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert moment("90s", now=now) == now - timedelta(seconds=90)
    assert moment(" 2D ", now=now) == now - timedelta(days=2)
    assert moment("2026-11-22T10:00+01:00", now=now) == datetime(2026, 11, 22, 9, tzinfo=UTC)
    assert moment("2026-11-22", now=now).tzinfo is UTC
    for wrong in ("", "6", "h", "-3h", "999999w", "0001-01-01T00:00+14:00"):
        with pytest.raises(InvalidInput, match="is not a time"):
            moment(wrong, now=now)
