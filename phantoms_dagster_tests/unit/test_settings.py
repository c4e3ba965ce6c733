"""Settings: where Dagster's tables are, what a wrong value says, and that secrets print as stars."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from phantoms_dagster.cli.settings_problems import settings_problem
from phantoms_dagster.registry.platforms import SPECS
from phantoms_dagster.resilience.pools import DailyQuota, PoolLimits, Pools, Rate
from phantoms_dagster.settings import RUNNING_FILE, Settings, grouped, load
from phantoms_dagster.settings.leaves import leaves
from phantoms_dagster.wiring.pool_limits import pool_overrides


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for leaf in leaves(Settings).values():
        monkeypatch.delenv(leaf.variable, raising=False)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2", "postgresql+asyncpg"])
def test_dagsters_url_always_names_its_driver(scheme: str) -> None:
    settings = Settings(database={"url": f"{scheme}://postgres:a%40b@postgres-db:5432/postgres?sslmode=require"})
    assert settings.dagster_url() == "postgresql+psycopg2://postgres:a%40b@postgres-db:5432/postgres?sslmode=require"


def test_dagster_may_have_a_database_of_its_own() -> None:
    settings = Settings(database={"url": "postgresql://a/ours", "dagster_url": "postgres://a/theirs"})
    assert settings.dagster_url() == "postgresql+psycopg2://a/theirs"
    assert Settings().dagster_url() is None


def test_dagster_in_our_database_under_our_name_does_not_take_our_migrations_for_its_own() -> None:
    """PostgreSQL looks into the schema of the role's name first: Dagster's Alembic once found our revision there, and failed."""
    beside = "postgresql+psycopg2://phantoms:p@db/x"
    assert Settings(database={"url": "postgres://phantoms:p@db/x"}).dagster_url() == f"{beside}?options=-csearch_path%3Dpublic"
    assert Settings(database={"url": f"{beside}?a=b"}).dagster_url() == f"{beside}?a=b&options=-csearch_path%3Dpublic"
    assert Settings(database={"url": f"{beside}?options=-cx%3Dy"}).dagster_url() == f"{beside}?options=-cx%3Dy"
    assert Settings(database={"url": "postgres://a@db/x", "dagster_url": beside}).dagster_url() == beside


def test_a_url_without_a_scheme_is_left_for_its_reader_to_refuse() -> None:
    assert Settings(database={"url": "localhost/x"}).dagster_url() == "localhost/x"


def test_secrets_print_as_stars() -> None:
    secret = "5ecr3t"
    fields = {name: secret for name in leaves(Settings) if name.endswith(("_api_key", "_token", "database_url", "redis_url"))}
    assert len(fields) == 6 + sum(name.endswith("token") for spec in SPECS.values() for name in spec.settings)
    settings = Settings(**grouped(fields))
    assert secret not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


def test_a_pool_keeps_the_registered_limits_that_the_setting_does_not_give() -> None:
    registered = Pools().limits("render")
    pools = {"render": {"slots": 99, "rates": [[60, 60, 5]]}, "script": {"daily": [500]}, "new": {"slots": 1}}
    settings = Settings(pacing={"pools": pools})
    assert pool_overrides(settings) == {
        "render": replace(registered, slots=99, rates=(Rate(60, 60.0, 5),)),
        "script": replace(Pools().limits("script"), daily=DailyQuota(500, "UTC")),
        "new": PoolLimits(slots=1),
    }
    assert pool_overrides(Settings(**settings.model_dump(exclude_unset=True))) == pool_overrides(settings)
    assert pool_overrides(Settings(pacing={"pools": {"render": {"slots": None}}}))["render"].slots is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("attempts", "zero"), ("attempts", "0"), ("sandbox", "maybe"), ("web_port", "70000"), ("lease_seconds", "0")],
)
def test_a_wrong_value_names_its_setting(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"PHANTOMS_{name.upper()}", value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert caught.value.errors()[0]["loc"] == leaves(Settings)[name].path


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", "")
    assert Settings().database.url is None


def test_the_environment_wins_over_what_a_running_stack_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
    (tmp_path / RUNNING_FILE).write_text("PHANTOMS_WEB_URL=http://left\nPHANTOMS_SANDBOX_URL=http://left\n")
    monkeypatch.setenv("PHANTOMS_WEB_URL", "http://set")
    settings = load()
    assert (settings.web.url, settings.sandbox.url) == ("http://set", "http://left")


def test_paths_are_in_the_data_directory_unless_they_are_set(tmp_path: Path) -> None:
    settings = Settings(paths={"home": tmp_path}, media={"folder": tmp_path / "elsewhere"})
    assert [settings.channels_path, settings.inbox_path, settings.media_path] == [
        tmp_path / "channels.yaml",
        tmp_path / "inbox",
        tmp_path / "elsewhere",
    ]


def test_settings_are_read_again_when_the_environment_a_running_stack_or_a_secret_file_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
    secret, running = tmp_path / "secret", tmp_path / RUNNING_FILE
    monkeypatch.setenv("PHANTOMS_OPENAI_API_KEY_FILE", str(secret))

    def look() -> tuple[str | None, str | None, int]:
        found = load()
        assert load() is found
        key, url = found.of("openai", "api_key"), found.redis.url
        return (
            None if key is None else key.get_secret_value(),
            None if url is None else url.get_secret_value(),
            found.pacing.chain_videos,
        )

    secret.write_text("one")
    assert look() == ("one", None, 3)
    secret.write_text("another")
    assert look() == ("another", None, 3)
    running.write_text("PHANTOMS_REDIS_URL=redis://here\n")
    assert look() == ("another", "redis://here", 3)
    monkeypatch.setenv("phantoms_fuse_videos", "7")
    assert look() == ("another", "redis://here", 7)
    running.unlink()
    assert look() == ("another", None, 7)


@pytest.mark.parametrize("variable", ["PHANTOMS_YOUTUBE_BASE_URL", "PHANTOMS_TIKTOK_AUTHORIZE_URL", "PHANTOMS_OPENAI_BASE_URL"])
@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ("http://api.example.com/v1", "should begin with https://, because keys are sent to it"),
        ("http://8.8.8.8", "should begin with https://, because keys are sent to it"),
        ("http://localhost.example.com", "should begin with https://, because keys are sent to it"),
        ("ftp://api.example.com", "should be a URL that begins with https://"),
        ("api.example.com", "should be a URL that begins with https://"),
        ("http://[::1", "should be a URL that begins with https://"),
        ("https://", "should be a URL that begins with https://"),
        ("https://api.example.com/v1", None),
        ("http://127.0.0.1:8080", None),
        ("http://[::1]:8080", None),
        ("http://192.168.1.7:11434/v1", None),
        ("http://sandbox:8080", None),
        ("http://models.lan", None),
    ],
)
def test_keys_travel_without_encryption_only_on_this_machine_and_private_networks(
    monkeypatch: pytest.MonkeyPatch, variable: str, given: str, refused: str | None
) -> None:
    monkeypatch.setenv(variable, given)
    if refused is None:
        Settings()
        return
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert settings_problem(caught.value).split(": ", 1)[1].startswith(refused)
