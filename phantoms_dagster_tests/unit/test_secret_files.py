"""Secrets from files, as in containers: `<VARIABLE>_FILE` names one. Messages say what is wrong with it, never what is in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from phantoms_dagster.settings import RUNNING_FILE, Settings, load
from phantoms_dagster.settings.leaves import leaves
from phantoms_dagster.settings.sources import SECRET_BYTES

SECRET = "5ecr3t/W0rd"
SECRETS = [name for name, leaf in leaves(Settings).items() if leaf.secret]
LONG = "https://u:w0rd@example.org/longer-than-32-characters"  # fit for a URL, and for a key with a least length
KEY = "PHANTOMS_OPENAI_API_KEY"
NOBODY = 65_534


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith("PHANTOMS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path / "home"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a file"


def problem(name: str = "openai_api_key") -> str:
    """What the settings say against the one value that is wrong."""
    with pytest.raises(ValidationError) as caught:
        load()
    [found] = caught.value.errors()
    assert found["loc"] == leaves(Settings)[name].path
    assert SECRET not in f"{caught.value} {caught.value!r}"
    return str(found["msg"])


def test_the_secrets_are_those_that_print_as_stars() -> None:
    assert {"database_url", "database_password", "redis_password", "openai_api_key", "instagram_token", "alert_urls"} <= set(
        SECRETS
    )
    assert not {"home", "openai_model", "pools", "web_port"} & set(SECRETS)


@pytest.mark.parametrize("name", SECRETS)
def test_every_secret_can_come_from_a_file(monkeypatch: pytest.MonkeyPatch, file: Path, name: str) -> None:
    file.write_text(LONG)
    monkeypatch.setenv(f"PHANTOMS_{name.upper()}_FILE", str(file))
    value = leaves(Settings)[name].value(load())
    [secret] = value if isinstance(value, list) else [value]
    assert isinstance(secret, SecretStr)
    assert secret.get_secret_value() == LONG


@pytest.mark.parametrize("outcome", ["", "\n", "\r\n", "\n\n"])
def test_line_breaks_at_the_end_are_not_part_of_it_and_all_else_is(
    monkeypatch: pytest.MonkeyPatch, file: Path, outcome: str
) -> None:
    file.write_bytes(f"\ufeff p@ss w0rd {outcome}".encode())
    monkeypatch.setenv(f"{KEY}_FILE", str(file))
    key = load().of("openai", "api_key")
    assert key is not None
    assert key.get_secret_value() == " p@ss w0rd "


@pytest.mark.parametrize("content", [b"", b"\n"])
def test_an_empty_file_is_an_unset_secret_as_an_empty_variable_is(
    monkeypatch: pytest.MonkeyPatch, file: Path, content: bytes
) -> None:
    file.write_bytes(content)
    monkeypatch.setenv(f"{KEY}_FILE", str(file))
    assert load().of("openai", "api_key") is None


def test_an_empty_name_counts_as_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{KEY}_FILE", "")
    assert load().of("openai", "api_key") is None


def test_the_variable_wins_over_its_file_and_the_file_over_what_a_running_stack_left(
    monkeypatch: pytest.MonkeyPatch, file: Path, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / RUNNING_FILE).write_text("PHANTOMS_REDIS_URL=redis://left\nPHANTOMS_DATABASE_URL=postgresql://left/x\n")
    file.write_text("redis://file")
    monkeypatch.setenv("PHANTOMS_REDIS_URL_FILE", str(file))
    settings = load()
    assert settings.redis.url is not None
    assert settings.redis.url.get_secret_value() == "redis://file"
    assert settings.database.url is not None
    assert settings.database.url.get_secret_value() == "postgresql://left/x"
    monkeypatch.setenv("PHANTOMS_REDIS_URL", "redis://variable")
    settings = load()
    assert settings.redis.url is not None
    assert settings.redis.url.get_secret_value() == "redis://variable"
    monkeypatch.setenv("PHANTOMS_REDIS_URL", "")
    assert load().redis.url == SecretStr("redis://file")


def test_a_missing_file_is_said(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv(f"{KEY}_FILE", str(file))
    assert problem() == f"Value error, the file that {KEY}_FILE names cannot be read: No such file or directory"


def test_a_secret_given_in_the_place_of_its_file_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{KEY}_FILE", SECRET)
    assert "No such file" in problem()


def test_a_folder_is_said_since_that_is_what_docker_makes_of_a_missing_file(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    file.mkdir()
    monkeypatch.setenv(f"{KEY}_FILE", str(file))
    assert problem().endswith("cannot be read: Is a directory")


def test_a_file_of_another_user_is_said(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    file.write_text(SECRET)
    file.chmod(0)
    monkeypatch.setenv("PHANTOMS_HOME", "/nowhere")
    monkeypatch.setenv(f"{KEY}_FILE", str(file))
    # Root may read everything.
    me = os.geteuid()
    os.seteuid(me or NOBODY)
    try:
        said = problem()
    finally:
        os.seteuid(me)
    assert said.endswith("Permission denied; the user that Phantoms runs as must be able to read it")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"{SECRET}\n# the key of June\n".encode(), "has more than one line"),
        (b"\xff\xfe" + SECRET.encode(), "is not text in UTF-8"),
        (SECRET.encode() * (SECRET_BYTES // 4), f"is larger than {SECRET_BYTES} bytes"),
    ],
)
def test_what_cannot_be_a_secret_is_refused(monkeypatch: pytest.MonkeyPatch, file: Path, content: bytes, said: str) -> None:
    file.write_bytes(content)
    monkeypatch.setenv(f"{KEY}_FILE", str(file))
    assert problem() == f"Value error, the file that {KEY}_FILE names {said}"


def test_a_list_may_have_a_line_for_each(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    file.write_text("mailto://u:p@example.org\njson://example.org/hook\n")
    monkeypatch.setenv("PHANTOMS_ALERT_URLS_FILE", str(file))
    assert [url.get_secret_value() for url in load().alerts.urls] == ["mailto://u:p@example.org", "json://example.org/hook"]


def test_a_setting_that_is_not_a_secret_has_no_file(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    file.write_text("gpt-9")
    monkeypatch.setenv("PHANTOMS_OPENAI_MODEL_FILE", str(file))
    assert load().of("openai", "model") == leaves(Settings)["openai_model"].field.default


@pytest.mark.parametrize(
    ("url", "completed"),
    [
        ("postgresql://phantoms@db:5432/x", "postgresql://phantoms:5ecr3t%2FW0rd@db:5432/x"),
        ("postgresql://phantoms@db/x?sslmode=require", "postgresql://phantoms:5ecr3t%2FW0rd@db/x?sslmode=require"),
        ("postgresql://phantoms:own@db/x", "postgresql://phantoms:own@db/x"),
        ("no url at all", "no url at all"),
    ],
)
def test_a_password_completes_the_urls_that_have_none(
    monkeypatch: pytest.MonkeyPatch, file: Path, url: str, completed: str
) -> None:
    file.write_text(f"{SECRET}\n")
    monkeypatch.setenv("PHANTOMS_DATABASE_PASSWORD_FILE", str(file))
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", url)
    monkeypatch.setenv("PHANTOMS_REDIS_URL", "redis://cache:6379/0")
    settings = load()
    assert settings.database.url == SecretStr(completed)
    assert settings.redis.url == SecretStr("redis://cache:6379/0")
    again = Settings(**settings.model_dump())
    assert again.database.url == SecretStr(completed)


def test_redis_has_a_password_of_its_own(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    file.write_text("w0rd")
    monkeypatch.setenv("PHANTOMS_REDIS_PASSWORD_FILE", str(file))
    monkeypatch.setenv("PHANTOMS_REDIS_URL", "redis://cache:6379/0")
    assert load().redis.url == SecretStr("redis://:w0rd@cache:6379/0")


def test_every_wrong_setting_is_named_at_once(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv(f"{KEY}_FILE", str(file))
    monkeypatch.setenv("PHANTOMS_ATTEMPTS", "zero")
    with pytest.raises(ValidationError) as caught:
        load()
    assert {found["loc"] for found in caught.value.errors()} == {("providers", "openai", "api_key"), ("pacing", "attempts")}


@pytest.mark.slow
def test_the_program_says_it_without_a_traceback_and_its_children_read_the_same_file(file: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "phantoms_dagster.cli.main", "doctor", "--json"]
    environment = {**os.environ, f"{KEY}_FILE": str(file), "COLUMNS": "400", "PHANTOMS_OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (refused.returncode, refused.stdout) == (2, "")
    said = f"error: {KEY}: the file that {KEY}_FILE names cannot be read: No such file or directory\n"
    assert refused.stderr == said
    file.write_text(SECRET)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    found = {finding["check"]: finding["found"] for finding in json.loads(done.stdout)["findings"]}
    assert found["openai"].startswith("cannot be reached: ")  # there is a key, so the service itself was asked
    assert SECRET not in done.stdout + done.stderr
