"""Dagster's own commands in a checkout without settings and without servers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance import InstanceRef
from dagster._core.storage.runs import SqliteRunStorage

from phantoms_dagster import settings
from phantoms_dagster.defs.build import build_definitions
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.execution.without_stores import FOLDER, MARKS
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring import Services

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files at the root that Dagster reads, in a folder that a stranger's module lies in, with nothing set."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("dagster.yaml", "workspace.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in [n for n in os.environ if n.startswith(("PHANTOMS_", "DAGSTER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(settings, "_pinned", None)
    monkeypatch.chdir(folder)
    yield folder
    shutil.rmtree(os.environ.pop(FOLDER, tmp_path / "none"), ignore_errors=True)


def test_the_definitions_are_validated_without_a_database_and_nothing_is_left_behind(checkout: Path) -> None:
    """It ended in a traceback that asked for a database."""
    before = sorted(path.name for path in checkout.iterdir())
    command = [str(Path(sys.executable).with_name("dagster")), "definitions", "validate"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(checkout.parent), "TMPDIR": str(checkout.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "All code locations passed validation" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in checkout.iterdir()) == before
    assert not list(checkout.parent.glob("phantoms-dagster-*"))


def test_without_a_database_only_commands_that_look_at_a_checkout_get_an_instance(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = InstanceRef.from_dir(str(checkout.parent), config_dir=str(checkout))
    with pytest.raises(InvalidInput, match="no database is running here"), dg.DagsterInstance.from_ref(reference):
        pass
    monkeypatch.setenv(MARKS[0], "1")
    with dg.DagsterInstance.from_ref(reference) as instance, dg.DagsterInstance.from_ref(reference) as other:
        assert isinstance(instance.run_storage, SqliteRunStorage)
        instance.add_dynamic_partitions("videos", ["a"])
        assert other.get_dynamic_partitions("videos") == ["a"]  # the web server and the daemon see the same
        with pytest.raises(InvalidInput, match="no Redis is running here"):
            instance.run_launcher._queues  # type: ignore[attr-defined]  # noqa: B018 - what a launch asks first


def test_every_sensor_skips_with_the_reason_where_there_is_no_database(checkout: Path) -> None:
    definitions = build_definitions()
    sensors = definitions.sensors or []
    assert len(list(sensors)) >= 8
    for sensor in sensors:
        assert isinstance(sensor, dg.SensorDefinition)
        with dg.DagsterInstance.ephemeral() as instance:
            services = Services(Settings(paths={"home": checkout}))
            context = dg.build_sensor_context(instance=instance, resources={"services": services}, definitions=definitions)
            skipped = sensor.evaluate_tick(context)
            assert "PHANTOMS_DATABASE_URL is not set" in (skipped.skip_message or ""), sensor.name
