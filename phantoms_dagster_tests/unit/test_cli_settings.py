"""`phantoms settings`: the values in force and where each came from, and never a secret."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from phantoms_dagster import settings as settings_module
from phantoms_dagster.cli import doctor
from phantoms_dagster.cli.main import app
from phantoms_dagster.settings import RUNNING_FILE, Settings
from phantoms_dagster.settings.leaves import leaves

SECRET = "sk-very-secret-4711"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("PHANTOMS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))


def told(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["settings", *arguments], env={"COLUMNS": "200"})
    return done.exit_code, done.output


def in_json(*arguments: str) -> dict[str, tuple[str, str]]:
    # A warning about an old name is on standard error, also when an earlier test has set up logging.
    output = CliRunner().invoke(app, ["settings", "--json", *arguments], env={"COLUMNS": "200"}).stdout
    return {one["variable"]: (one["value"], one["source"]) for one in json.loads(output)["settings"]}


def test_every_setting_is_shown_with_its_value_and_its_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PHANTOMS_BATCH_SIZE", "7")
    token = tmp_path / "token"
    token.write_text(SECRET)
    monkeypatch.setenv("PHANTOMS_YOUTUBE_TOKEN_FILE", str(token))
    (tmp_path / RUNNING_FILE).write_text(f"PHANTOMS_DATABASE_URL=postgresql://phantoms:{SECRET}@127.0.0.1:5/phantoms\n")
    found = in_json()
    assert list(found) == [leaf.variable for leaf in leaves(Settings).values()]
    assert found["PHANTOMS_BATCH_SIZE"] == ("7", "environment")
    assert found["PHANTOMS_YOUTUBE_TOKEN"] == ("********", "the file in PHANTOMS_YOUTUBE_TOKEN_FILE")
    assert found["PHANTOMS_DATABASE_URL"] == ("********", "running `phantoms up`")
    assert found["PHANTOMS_ATTEMPTS"] == ("5", "default")
    assert set(in_json("--changed")) == {
        "PHANTOMS_HOME", "PHANTOMS_BATCH_SIZE", "PHANTOMS_YOUTUBE_TOKEN", "PHANTOMS_DATABASE_URL"
    }  # fmt: skip


def test_each_group_has_one_heading_above_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line.split()[:3] for line in told()[1].splitlines()]
    at = lines.index(["retirement"])
    assert lines[at - 1 : at + 4] == [
        [],
        ["retirement"],
        ["PHANTOMS_RETIRE_DAYS", "30", "default"],
        ["PHANTOMS_MEDIA_KEEP", "all", "default"],
        ["PHANTOMS_MEDIA_KEEP_DAYS", "7", "default"],
    ]
    assert [lines.count([*path.split()]) for path in ("database", "providers openai", "platforms youtube")] == [1, 1, 1]
    monkeypatch.setenv("PHANTOMS_BATCH_SIZE", "7")
    chosen = [line.split() for line in told("--changed")[1].splitlines()]
    assert [words for words in chosen if len(words) == 1] == [["paths"], ["pacing"]]
    groups = {one["variable"]: one["group"] for one in json.loads(told("--json")[1])["settings"]}
    assert groups["PHANTOMS_DAGSTER_DATABASE_URL"] == "database"


def test_pools_are_shown_as_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    written = '{"render": {"slots": 4, "rates": [[60, 60.0, 5]], "daily": [500, "UTC"]}, "script": {"daily": null}}'
    monkeypatch.setenv("PHANTOMS_POOLS", written)
    assert json.loads(in_json()["PHANTOMS_POOLS"][0]) == json.loads(written)


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ('{"slots": 0}', "render.slots should be at least 1"),
        ('{"slotz": 4}', "render has no limit 'slotz'; there are slots, rates, daily, lease_seconds, leaves"),
        ('{"rates": [[60, 60, 5], [9, 60]]}', "render.rates.1 should be [calls, seconds, burst], such as [60, 60, 5]"),
        ('{"rates": [[5, 60, 6]]}', "render.rates.0 should be [calls, seconds, burst]"),
        ('{"rates": 5}', "render.rates should be a list"),
        ('{"daily": 500}', 'render.daily should be [units, time zone], such as [500, "UTC"]'),
        ('{"daily": [500, "Mars/Base"]}', "render.daily should be [units, time zone]"),
        ('{"daily": [500, "America"]}', "render.daily should be [units, time zone]"),
        ('{"lease_seconds": 0}', "render.lease_seconds should be more than 0"),
        ("4", "render should be pairs of a key and a value"),
    ],
)
def test_a_wrong_pool_names_the_pool_the_limit_and_the_right_form(
    monkeypatch: pytest.MonkeyPatch, limits: str, problem: str
) -> None:
    monkeypatch.setenv("PHANTOMS_POOLS", f'{{"render": {limits}}}')
    code, output = told()
    assert code == 2
    assert problem in output
    assert 'write it as JSON, like {"render": {"slots": 4' in output


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--changed",), ("url",)])
def test_no_secret_is_ever_printed(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    monkeypatch.setenv("PHANTOMS_OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("PHANTOMS_ALERT_URLS", f"https://hooks.example/{SECRET},https://two.example/{SECRET}")
    monkeypatch.setenv("PHANTOMS_SANDBOX_URL", f"http://user:{SECRET}@127.0.0.1:9")
    code, output = told(*arguments)
    assert code == 0
    assert SECRET not in output
    assert "http://********@127.0.0.1:9" in output


def test_a_variable_that_is_not_a_setting_is_reported_with_the_one_that_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHANTOMS_BATCHSIZE", "3")
    monkeypatch.setenv("PHANTOMS_MY_CHANNELS_OWN", SECRET)
    code, output = told()
    assert code == 0
    assert "PHANTOMS_BATCHSIZE is not a setting; did you mean PHANTOMS_BATCH_SIZE?" in output
    assert "PHANTOMS_MY_CHANNELS_OWN is not a setting; unless a channel uses it for a token, it has no effect" in output


def test_a_setting_by_its_old_name_still_works_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PHANTOMS_FUSE_VIDEOS", "7")
    monkeypatch.setenv("PHANTOMS_PATIENCE_SECONDS", "30")
    monkeypatch.setenv("PHANTOMS_MAX_WAIT_SECONDS", "40")
    found = in_json()
    assert found["PHANTOMS_CHAIN_VIDEOS"] == ("7", "environment, under its old name PHANTOMS_FUSE_VIDEOS")
    assert found["PHANTOMS_MAX_WAIT_SECONDS"] == ("40.0", "environment")
    assert "PHANTOMS_FUSE_VIDEOS is now called PHANTOMS_CHAIN_VIDEOS. The old name still works" in caplog.text
    assert "FUSE_VIDEOS is not a setting" not in told()[1]


def test_a_wrong_value_by_an_old_name_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHANTOMS_GATHER_SECONDS", "soon")
    code, output = told()
    assert code == 2
    assert "batch_wait_seconds" in output.lower()


def test_doctor_notes_a_variable_that_was_probably_meant_as_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """It did nothing, and no message said so."""
    monkeypatch.setenv("PHANTOMS_YOUTUB_TOKEN", SECRET)
    monkeypatch.setenv("PHANTOMS_MY_CHANNELS_OWN", SECRET)
    notes = [one for one in doctor.examine(settings_module.load()) if one.check == "settings"]
    assert [(note.verdict, note.fix) for note in notes] == [("note", "did you mean PHANTOMS_YOUTUBE_TOKEN?")]
    assert SECRET not in str(notes)


def test_a_word_shows_what_its_settings_mean_and_one_that_fits_none_is_an_error() -> None:
    code, output = told("youtube", "token")
    assert code == 0
    assert "PHANTOMS_YOUTUBE_TOKEN" in output
    assert "PHANTOMS_TIKTOK_TOKEN" not in output
    assert leaves(Settings)["youtube_token"].description in output
    code, output = told("nosuchword")
    assert (code, "`phantoms settings` shows all" in output) == (2, True)
