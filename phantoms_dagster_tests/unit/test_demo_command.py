"""How `phantoms demo` ends: its exit code and its last sentence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from phantoms_dagster.cli.demo import command as demo
from phantoms_dagster.cli.demo.end import DemoOutcome
from phantoms_dagster.cli.demo.outage import BREAKER_SETTINGS
from phantoms_dagster.cli.main import app
from phantoms_dagster.settings import Settings

TOTALS = {"videos": 0, "posts": 0, "ledger_posts": 0, "views": 0, "cost_usd": 0.0}


def run(monkeypatch: pytest.MonkeyPatch, home: Path, end: DemoOutcome | BaseException) -> Result:
    def played(*_: Any, **__: Any) -> DemoOutcome:
        if isinstance(end, BaseException):
            raise end
        return end

    monkeypatch.setattr(demo, "_demo", played)
    return CliRunner().invoke(app, ["demo", "--keep", str(home)])


def test_a_proof_that_holds_is_0_and_one_that_does_not_is_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(monkeypatch, tmp_path, DemoOutcome([], TOTALS, [])).exit_code == 0
    assert run(monkeypatch, tmp_path, DemoOutcome([], TOTALS, ["the sandbox counts 2 posts on tiktok"])).exit_code == 1


def test_ctrl_c_at_any_moment_is_130_and_says_what_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ended = run(monkeypatch, tmp_path / "[red] home", KeyboardInterrupt())
    assert ended.exit_code == 130
    assert "Nothing is still running" in ended.output
    assert f"rm -r {tmp_path / '[red] home'}" in " ".join(ended.output.split())


def test_the_breaker_settings_of_an_outage_are_settings_and_reach_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PHANTOMS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PHANTOMS_RENDERER", "local")
    monkeypatch.setenv("PHANTOMS_BREAKER_MINIMUM_CALLS", "500")
    monkeypatch.setenv("PHANTOMS_YOUTUBE_TOKEN", "real")
    for name in BREAKER_SETTINGS:
        monkeypatch.setenv(name, os.environ.get(name, "1"))  # so that the end of the test takes back what the demo sets
    demo._forget_environment(faults=True)
    assert {name: os.environ[name] for name in BREAKER_SETTINGS} == BREAKER_SETTINGS
    found = Settings()
    assert (found.breakers.minimum_calls, found.breakers.window_seconds, found.breakers.reset_seconds) == (3, 10.0, 5.0)
    assert (found.renderer.choice, found.platform("youtube").token) == ("auto", None)
