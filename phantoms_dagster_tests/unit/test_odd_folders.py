"""Data directories with characters that are special in dotenv files or in glob patterns."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from phantoms_dagster.cli.stack import _quoted
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.execution import home as home_module
from phantoms_dagster.execution.home import dagster_home, prepare
from phantoms_dagster.settings import RUNNING_FILE, Settings, load
from phantoms_dagster.settings.leaves import leaves

NAMES = ["it's my [studio]", "a #b ${HOME}", "what? *", '100% "q" \\n', "é\nsecond line"]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for leaf in leaves(Settings).values():
        monkeypatch.delenv(leaf.variable, raising=False)


@pytest.mark.parametrize("name", NAMES)
def test_other_commands_find_a_running_stack_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / RUNNING_FILE).write_text(f"PHANTOMS_WEB_URL={_quoted('http://left')}\n")
    monkeypatch.setenv("PHANTOMS_HOME", str(folder))
    settings = load()
    assert (settings.paths.home, settings.web.url) == (folder, "http://left")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PHANTOMS_HOME", ".")
    assert load().media_path == folder / "media"


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("redis://:it's#1@h/0", "redis://:it's#1@h/0"),
        ("redis://:a\\'b\"@h/0", "redis://:a\\'b\"@h/0"),
        ("redis://:${HOME}@h/0", "redis://:%24{HOME}@h/0"),
    ],
)
def test_a_url_survives_the_file_that_a_running_stack_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, read: str
) -> None:
    (tmp_path / RUNNING_FILE).write_text(f"PHANTOMS_REDIS_URL={_quoted(url)}\n")
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
    found = load().redis.url
    assert found is not None
    assert found.get_secret_value() == read


@pytest.mark.parametrize("name", ["it's my [studio]", "a*b", "what?"])
def test_dagster_reads_its_configuration_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Dagster globs for dagster.yaml; where it matched nothing, everything went into SQLite files."""
    from dagster._core.instance.config import dagster_instance_config  # noqa: PLC0415 - half a second

    aliases = tmp_path / "aliases"
    aliases.mkdir()
    monkeypatch.setattr(home_module, "ALIASES", aliases)
    folder = prepare(tmp_path / name, Settings())
    config, _ = dagster_instance_config(str(folder))
    assert config["storage"]["custom"]["class"] == "PooledPostgresStorage"
    assert folder.resolve() == (tmp_path / name / "dagster").resolve()
    assert prepare(tmp_path / name, Settings()) == folder  # runs remember the path
    assert prepare(tmp_path / "plain", Settings()) == tmp_path / "plain" / "dagster"


def test_a_link_that_another_user_could_change_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home_module, "ALIASES", tmp_path)
    link = dagster_home(tmp_path / "[x]")
    link.parent.chmod(0o777)
    with pytest.raises(InvalidInput, match="does not belong to this user"):
        dagster_home(tmp_path / "[x]")
    shutil.rmtree(link.parent)
    link.parent.symlink_to(tmp_path)
    with pytest.raises(InvalidInput, match="does not belong to this user"):
        dagster_home(tmp_path / "[x]")
    assert [path.name for path in tmp_path.iterdir()] == [link.parent.name]
