"""The processes of `phantoms up`: what they inherit, and what the person sees while they start."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from phantoms_dagster.cli.stack import Stack, StartProgress
from phantoms_dagster.settings import Settings


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    nowhere = {"url": "http://127.0.0.1:9"}
    return Settings(
        paths={"home": tmp_path / "home"},
        database={"url": database_url},
        redis={"url": redis_url},
        web=nowhere,
        sandbox=nowhere,
    )


def test_a_file_in_the_working_directory_takes_the_place_of_no_module(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's file gql.py kept the web server from starting."""
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    stack = Stack(settings, say=lambda _: None, warn=lambda _: None)
    try:
        environment = stack._environment(settings)
        specs = {
            s.name: s for s in [*stack._dagster(settings, environment), stack._metrics("http://127.0.0.1:9/metrics", environment)]
        }
        specs["sandbox"] = stack._sandbox(settings, stack._plain_environment())
        assert set(specs) == {"workers", "desk", "code-server", "daemon", "webserver", "metrics", "sandbox"}
        for spec in specs.values():
            assert spec.env is not None
            assert spec.env["PYTHONSAFEPATH"] == "1"
            assert "VIRTUAL_ENV" not in spec.env  # uv, if anything of theirs calls it, warns of one that is not the project's
        assert "--empty-working-directory" in specs["code-server"].argv
        (tmp_path / "gql.py").write_text("raise SystemExit('a stranger was imported')")
        program = specs["webserver"]
        done = subprocess.run(
            [*program.argv[:3], "--help"], env=dict(program.env or {}), cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
    finally:
        stack.__exit__(None, None, None)


def test_the_names_of_what_is_waited_for_are_reported_whenever_they_change() -> None:
    told: list[list[str]] = []
    awaited = StartProgress(lambda names: told.append(list(names)))
    awaited.add(["sandbox", "code-server"])
    awaited.remove("sandbox")
    awaited.add(["webserver"])
    awaited.remove("webserver")
    awaited.remove("code-server")
    assert told == [["sandbox", "code-server"], ["code-server"], ["code-server", "webserver"], ["code-server"], []]
