"""`phantoms init`: what it leaves on empty servers, that it may be repeated, and what it says when it cannot work."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg
import pytest
import yaml
from sqlalchemy import make_url
from typer.testing import CliRunner, Result

from phantoms_dagster.cli.main import app
from phantoms_dagster.domain import channels
from phantoms_dagster.store.migrate import pending

SECRET = "5ecr3tW0rd"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in [n for n in os.environ if n.startswith(("PHANTOMS_", "DAGSTER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def init(*arguments: str, **environment: str) -> Result:
    result = CliRunner().invoke(app, ["init", *arguments], env={f"PHANTOMS_{name}": value for name, value in environment.items()})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)) as connection:
        return connection.execute(query.encode()).fetchall()


def test_empty_servers_are_ready_afterwards_and_a_second_time_nothing_is_lost(
    home: Path, empty_database_url: str, redis_url: str
) -> None:
    stores = {"DATABASE_URL": empty_database_url, "REDIS_URL": redis_url}
    result = init("--code-server", "code-server:4000", **stores)
    assert (result.exit_code, result.stdout) == (0, f"ready; DAGSTER_HOME is {home / 'dagster'}\n")
    assert pending(empty_database_url) == []
    assert rows(empty_database_url, "SELECT name FROM phantoms.channels")
    # The role and our schema are both called phantoms.
    assert make_url(empty_database_url).username == "phantoms"
    assert rows(empty_database_url, "SELECT count(*) FROM public.runs") == [(0,)]
    assert (home / "channels.yaml").read_text(encoding="utf-8") == channels.default_text()
    assert (home / "inbox").is_dir()
    assert yaml.safe_load((home / "dagster" / "workspace.yaml").read_text()) == {
        "load_from": [{"grpc_server": {"host": "code-server", "port": 4000, "location_name": "phantoms"}}]
    }
    mine = channels.default_text().replace("channels:", "# mine\nchannels:", 1)
    (home / "channels.yaml").write_text(mine, encoding="utf-8")
    assert init(**stores).exit_code == 0
    assert (home / "channels.yaml").read_text(encoding="utf-8") == mine
    assert (home / "dagster" / "workspace.yaml").exists()


def test_dagster_lets_through_as_many_runs_as_all_machines_have_workers(
    home: Path, empty_database_url: str, redis_url: str
) -> None:
    slots = '{"script": 3, "voiceover": 0}'
    stores = {"DATABASE_URL": empty_database_url, "REDIS_URL": redis_url}
    assert init("--machines", "4", WORKER_SLOTS=slots, **stores).exit_code == 0
    written = yaml.safe_load((home / "dagster" / "dagster.yaml").read_text())
    limits = written["concurrency"]["runs"]["tag_concurrency_limits"]
    by_stage = {limit["value"]: limit["limit"] for limit in limits if limit["key"] == "phantoms/stage"}
    assert (by_stage["script"], by_stage["voiceover"], by_stage["rendered_video"]) == (12, 1, 4)


@pytest.mark.parametrize("address", ["code-server", ":4000", "code-server:0", "code-server:70000", "http://x:4000", "x:4000\n- y"])
def test_an_address_that_is_none_is_refused_before_anything_is_written(home: Path, redis_url: str, address: str) -> None:
    result = init("--code-server", address, DATABASE_URL="postgresql://127.0.0.1:1/x", REDIS_URL=redis_url)
    assert result.exit_code == 2
    assert "write it as HOST:PORT" in result.stderr
    assert not home.exists()


def test_without_servers_it_says_what_to_set(home: Path, redis_url: str) -> None:
    assert "PHANTOMS_REDIS_URL" in init().stderr
    result = init(REDIS_URL=redis_url)
    assert result.exit_code == 2
    assert "PHANTOMS_DATABASE_URL" in result.stderr
    assert not home.exists()


def test_a_database_that_does_not_answer_is_a_message(redis_url: str) -> None:
    result = init(DATABASE_URL=f"postgresql://u:{SECRET}@127.0.0.1:1/db", REDIS_URL=redis_url)
    assert result.exit_code == 1
    assert "PostgreSQL does not answer" in result.stderr
    assert SECRET not in result.output


def test_what_dagster_cannot_prepare_is_reported_with_its_reason(empty_database_url: str, redis_url: str) -> None:
    url = f"postgresql://u:{SECRET}@127.0.0.1:1/db"
    result = init(DATABASE_URL=empty_database_url, DAGSTER_DATABASE_URL=url, REDIS_URL=redis_url)
    assert result.exit_code == 1
    assert "Dagster's instance could not be prepared" in result.stderr
    assert "Connection refused" in result.stderr
    assert 'File "' not in result.stderr
    assert SECRET not in result.output


def test_a_mistyped_url_of_dagsters_tables_never_shows_what_may_be_half_a_password(empty_database_url: str, redis_url: str) -> None:
    url = f"postgresql://u:p@127.0.0.1:{SECRET}/db"
    result = init(DATABASE_URL=empty_database_url, DAGSTER_DATABASE_URL=url, REDIS_URL=redis_url)
    assert result.exit_code == 2
    assert "the database URL cannot be read" in result.stderr
    assert SECRET not in result.output
