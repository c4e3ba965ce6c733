"""The `phantoms` program as people meet it: its help, its errors, and that it never prints a secret or a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import make_url
from typer.testing import CliRunner, Result

from phantoms_dagster.cli.main import EXAMPLES, LINES, app

SECRET = "5ecr3tW0rd"
COMMANDS = ["add", "import", "status", "show", "approve", "reject", "doctor", "demo", "up", "sandbox"]
KEYS = ("OPENAI_API_KEY", "SHOTSTACK_API_KEY", "YOUTUBE_TOKEN", "TIKTOK_TOKEN", "INSTAGRAM_TOKEN")
UNREACHABLE = f"postgresql://u:{SECRET}@127.0.0.1:1/db"


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith("PHANTOMS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path / "home"))


def phantoms(*arguments: str, **environment: str) -> Result:
    given = {name if name == "COLUMNS" else f"PHANTOMS_{name}": value for name, value in environment.items()}
    result = CliRunner().invoke(app, arguments, env=given)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real program in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "phantoms_dagster.cli.main", *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=60, encoding="utf-8"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_commands_help_teaches_with_examples(name: str) -> None:
    result = phantoms(name, "--help", COLUMNS="120")
    assert result.exit_code == 0
    assert EXAMPLES[name]
    for example in EXAMPLES[name]:
        assert example.startswith(f"phantoms {name}")
        assert example in result.stdout


def test_every_command_has_examples() -> None:
    with_their_own = {"dead-letters", "breakers", "users", "guest-links", "webhooks", "posts"}
    assert {line.name for line in LINES} - with_their_own == set(EXAMPLES)
    assert "phantoms users add kim" in phantoms("users", "--help").output


def test_the_program_alone_shows_its_commands() -> None:
    shown = phantoms().output
    assert all(f" {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize(
    "command", [["status"], ["status", "--json"], ["show", "x"], ["approve", "--all"], ["reject", "x"], ["add", "A"]]
)
def test_a_database_that_does_not_answer_is_a_message_and_an_exit_code(command: list[str]) -> None:
    result = phantoms(*command, DATABASE_URL=UNREACHABLE)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: PostgreSQL does not answer")
    assert "Connection refused" in result.stderr
    assert "`phantoms up`" in result.stderr
    assert SECRET not in result.output


def test_no_database_at_all_says_how_to_get_one() -> None:
    result = phantoms("status")
    assert result.exit_code == 2
    assert "start `phantoms up`, or set PHANTOMS_DATABASE_URL" in result.stderr


def test_a_database_without_our_tables_says_what_prepares_it(empty_database_url: str) -> None:
    result = phantoms("status", DATABASE_URL=empty_database_url)
    assert (result.exit_code, result.stderr) == (
        1,
        "error: the database is not set up yet; `phantoms up` or `phantoms init` does it\n",
    )


@pytest.mark.parametrize("command", ["status", "doctor"])
@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:p@{SECRET}/db",
        f"postgresql://u:p/{SECRET}@127.0.0.1/db",
        f"postgresql://u:p@ss/{SECRET}@127.0.0.1/db",
        f"postgresql://u:{SECRET}@127.0.0.1:port/db",
        f"u:{SECRET}@127.0.0.1",
        f"mysql://u:{SECRET}@127.0.0.1/db",
    ],
)
def test_a_mistyped_url_never_shows_what_may_be_half_a_password(command: str, url: str) -> None:
    redis = url.replace("postgresql", "redis")
    result = phantoms(command, DATABASE_URL=url, REDIS_URL=redis)
    assert result.exit_code != 0
    assert SECRET.lower() not in result.output.replace("\n", "").lower()


def test_a_wrong_password_is_said_and_not_shown(database_url: str) -> None:
    url = make_url(database_url).set(password=SECRET).render_as_string(hide_password=False)
    for command in (["status"], ["doctor"], ["doctor", "--json"]):
        result = phantoms(*command, DATABASE_URL=url)
        assert result.exit_code == 1
        assert "password" in result.output
        assert SECRET not in result.output


def test_no_command_prints_a_secret(database_url: str, redis_url: str, tmp_path: Path) -> None:
    secrets = [SECRET, *(str(password) for url in (database_url, redis_url) if (password := make_url(url).password))]
    environment = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "OPENAI_BASE_URL": f"https://u:{SECRET}@127.0.0.1/v1"}
    environment |= dict.fromkeys(KEYS, SECRET)
    (tmp_path / "b.csv").write_text("title\nA\nB,b\n")
    commands = [["add", "Sea"], ["import", str(tmp_path / "b.csv")], ["status"], ["status", "--json"], ["show", "sea"]]
    commands += [["show", "sea", "--json"], ["approve", "sea"], ["reject", "--all"], ["doctor"], ["doctor", "--json"]]
    for command in commands:
        output = phantoms(*command, **environment).output
        assert output
        for secret in secrets:
            assert secret not in output, command


def test_doctor_finds_nothing_wrong_where_nothing_is(database_url: str, redis_url: str) -> None:
    result = phantoms("doctor", "--json", DATABASE_URL=database_url, REDIS_URL=redis_url)
    report = json.loads(result.stdout)
    found = {finding["check"]: finding for finding in report["findings"]}
    assert (result.exit_code, report["ok"], result.stderr) == (0, True, "")
    assert found["PostgreSQL"]["found"].endswith("schema up to date")
    assert found["Redis"]["verdict"] == found["ffmpeg"]["verdict"] == "ok"
    assert "PHANTOMS_OPENAI_API_KEY" in found["openai"]["fix"]


def test_doctor_names_each_thing_that_is_wrong_and_how_to_mend_it(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where the data directory should be")
    (tmp_path / "channels.yaml").write_text("channels: {}")
    result = phantoms(
        "doctor",
        "--json",
        DATABASE_URL=UNREACHABLE,
        REDIS_URL=f"redis://:{SECRET}@127.0.0.1:1/0",
        CHANNELS=str(tmp_path / "channels.yaml"),
        SANDBOX="off",
    )
    report = json.loads(result.stdout)
    wrong = {f["check"] for f in report["findings"] if f["verdict"] == "wrong"}
    assert (result.exit_code, report["ok"]) == (1, False)
    assert wrong == {"data directory", "channels", "PostgreSQL", "Redis", "openai", "shotstack", "youtube", "tiktok", "instagram"}
    assert all(f["fix"] for f in report["findings"] if f["verdict"] == "wrong")
    assert SECRET not in result.output


def test_doctor_goes_on_when_only_postgresql_could_say_whether_the_accounts_have_tokens(tmp_path: Path) -> None:
    (tmp_path / "channels.yaml").write_text(
        "channels:\n"
        "  one: {title: One, brand_voice: Calm., accounts: {youtube: first}}\n"
        "  two: {title: Two, brand_voice: Calm., accounts: {youtube: second}}\n"
    )
    result = phantoms("doctor", "--json", DATABASE_URL=UNREACHABLE, CHANNELS=str(tmp_path / "channels.yaml"), YOUTUBE_TOKEN=SECRET)
    report = json.loads(result.stdout)
    found = {finding["check"]: finding for finding in report["findings"]}
    assert (result.exit_code, found["PostgreSQL"]["verdict"]) == (1, "wrong")
    assert (found["channels"]["verdict"], found["channels"]["fix"]) == (
        "note",
        "fix PostgreSQL first, then run `phantoms doctor` again",
    )
    assert {"youtube:first", "youtube:second"} <= set(found)


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_all_wrong_settings_are_reported_at_once_with_what_was_given_and_the_right_form(command: str) -> None:
    result = phantoms(command, ATTEMPTS="zero", SANDBOX=SECRET, POOLS="{a", BATCH_SIZE="1001", DAGSTER_POOLS='{"render": 0}')
    assert (result.exit_code, result.stdout) == (2, "")
    first, *lines = result.stderr.splitlines()
    assert first == "error: 5 settings are invalid:"
    pools = '{"render": {"slots": 4, "rates": [[60, 60, 5]], "daily": [500, "UTC"]}}'
    assert [line.strip() for line in lines] == [
        "PHANTOMS_SANDBOX=********: should be auto, on or off",
        "PHANTOMS_BATCH_SIZE=1001: should be a whole number from 1 to 1000",
        "PHANTOMS_ATTEMPTS=zero: should be a whole number, 1 or more",
        f"PHANTOMS_POOLS={{a: is no JSON; write it as JSON, like {pools}",
        'PHANTOMS_DAGSTER_POOLS={"render": 0}: render should be at least 1; write it as JSON, like {"render": 1}',
    ]
    assert SECRET not in result.output


def test_a_wrong_secret_and_what_looks_like_one_in_the_wrong_place_are_never_repeated() -> None:
    key = "sk-proj-0123456789abcdef"
    result = phantoms("status", BATCH_SIZE=key, OPENAI_API_KEY_FILE="/no/such/file", MEDIA_URL="https://me:pass@host/x")
    assert result.exit_code == 2
    assert "PHANTOMS_BATCH_SIZE=********: should be a whole number from 1 to 1000" in result.stderr
    assert "PHANTOMS_OPENAI_API_KEY: the file that PHANTOMS_OPENAI_API_KEY_FILE names cannot be read" in result.stderr
    assert key not in result.output
    assert "pass" not in result.output


def test_a_channels_file_that_is_named_and_not_there_is_an_error_and_no_default_takes_its_place(
    database_url: str, tmp_path: Path
) -> None:
    gone = tmp_path / "gone.yaml"
    brief = tmp_path / "b.csv"
    brief.write_text("title\nA\n")
    for command in (["add", "Title"], ["import", str(brief)], ["approve", "--all"], ["up"]):
        result = phantoms(*command, DATABASE_URL=database_url, CHANNELS=str(gone), HOME=str(tmp_path / "home"))
        assert result.exit_code == 2, (command, result.output)
        assert f"PHANTOMS_CHANNELS names {gone}, which does not exist: create it" in result.stderr
    assert not gone.exists()
    report = json.loads(phantoms("doctor", "--json", DATABASE_URL=database_url, CHANNELS=str(gone)).stdout)
    [found] = [finding for finding in report["findings"] if finding["check"] == "channels"]
    assert (found["verdict"], found["found"]) == ("wrong", f"PHANTOMS_CHANNELS names {gone}, which does not exist")


def test_the_real_program_reports_an_error_without_a_traceback() -> None:
    done = program("status", PHANTOMS_DATABASE_URL=UNREACHABLE)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: PostgreSQL does not answer")
    assert "Traceback" not in done.stderr


def test_a_terminal_that_knows_only_ascii_gets_marks_it_can_show(database_url: str) -> None:
    environment = {"PHANTOMS_DATABASE_URL": database_url, "PYTHONIOENCODING": "ascii"}
    assert phantoms("add", "Ä sea", "--platforms", "youtube", DATABASE_URL=database_url).exit_code == 0
    shown = program("show", "sea", **environment)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.isascii()
    assert "o ready" in shown.stdout
    assert "? sea" in shown.stdout


def test_bytes_that_are_not_utf8_in_an_argument_are_refused(database_url: str) -> None:
    result = phantoms("show", "\udcff", DATABASE_URL=database_url)
    assert (result.exit_code, result.stderr) == (2, "error: an argument contains bytes that are not UTF-8\n")


@pytest.mark.parametrize("arguments", ["status --json", "status", "--help", "dead-letters list --help"])
def test_a_reader_that_goes_away_early_causes_no_noise_and_the_exit_code_that_shells_know(
    arguments: str, database_url: str
) -> None:
    command = f"set -o pipefail; {sys.executable} -W ignore -m phantoms_dagster.cli.main {arguments} | true"
    environment = {**os.environ, "PHANTOMS_DATABASE_URL": database_url}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_setting_that_is_not_json_is_named_and_its_value_is_not() -> None:
    result = phantoms("status", POOLS=SECRET)
    assert result.exit_code == 2
    assert "PHANTOMS_POOLS=********: is no JSON" in result.stderr
    assert SECRET not in result.output
