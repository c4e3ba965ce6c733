"""The repository is laid out as the documents say: modules, entry point, Dagster's files, decisions, CI."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from phantoms_dagster.settings import Settings
from phantoms_dagster.settings.leaves import leaves

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "phantoms_dagster"
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.stat().st_size]
ADRS = sorted((ROOT / "docs" / "adr").glob("0*.md"))

# An import must not open a connection, start a process, or fail because of a wrong setting.
IMPORT_ALL = """
import importlib, sys
def no_io(event, arguments):
    if event in ("socket.connect", "socket.bind", "subprocess.Popen"):
        raise RuntimeError(f"importing does {event} {arguments[1:]}")
sys.addaudithook(no_io)
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_every_module_says_what_it_is_for() -> None:
    silent = [str(p.relative_to(ROOT)) for p in MODULES if not ast.get_docstring(ast.parse(p.read_text(encoding="utf-8")))]
    assert silent == []


def test_the_entry_point_builds_the_definitions_and_nothing_else() -> None:
    statements = ast.parse((PACKAGE / "definitions.py").read_text(encoding="utf-8")).body
    assert [type(statement) for statement in statements] == [ast.Expr, ast.ImportFrom, ast.Assign]
    assert ast.unparse(statements[2]) == "defs = build_definitions()"


@pytest.mark.slow
def test_importing_reads_no_setting_and_opens_no_connection() -> None:
    """A setting read at import has made whole code locations unloadable for one mistyped variable."""
    # Alembic alone runs its environment and its versions, and bootstrap is run by path.
    apart = ("store/migrations/", "embedded/bootstrap.py")
    paths = [p.relative_to(ROOT).with_suffix("") for p in MODULES if not str(p.relative_to(PACKAGE)).startswith(apart)]
    names = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    environment = {**os.environ, "PHANTOMS_ATTEMPTS": "many", "PHANTOMS_DATABASE_URL": "nonsense", "PHANTOMS_SANDBOX": "perhaps"}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *names],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr


def test_dagster_yaml_starts_from_the_defaults_of_the_settings() -> None:
    config = yaml.safe_load((ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    defaults = {name: leaf.field.default for name, leaf in leaves(Settings).items()}
    assert config["concurrency"]["runs"]["max_concurrent_runs"] == defaults["max_runs"]
    assert config["concurrency"]["pools"] == {"granularity": "run"}
    assert config["run_monitoring"]["start_timeout_seconds"] == defaults["run_start_timeout"]
    assert config["run_retries"]["max_retries"] == defaults["run_retries"]
    assert (config["telemetry"], config["nux"]) == ({"enabled": False}, {"enabled": False})


def test_dagster_dev_loads_the_same_definitions() -> None:
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text(encoding="utf-8"))
    [location] = [entry["python_module"] for entry in workspace["load_from"]]
    assert location["module_name"] == "phantoms_dagster.definitions"


def test_decisions_have_numbers_of_their_own_and_say_status_context_decision_and_consequences() -> None:
    numbers = [int(path.name[:4]) for path in ADRS]
    assert len(set(numbers)) == len(numbers)
    for path in ADRS:
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {path.name[:4]} "), path.name
        status = text.splitlines()[2]
        assert re.match(r"Status: (accepted|replaced by \[\d{4}\]\([^)]*\)), \d{4}-\d\d-\d\d\.", status), f"{path.name}: {status}"
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"], path.name


def test_what_the_documents_call_by_its_path_is_there() -> None:
    pages = [ROOT / "docs" / "architecture.md", *ADRS]
    for page in pages:
        for name in re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|yaml))`", page.read_text(encoding="utf-8")):
            assert (PACKAGE / name).exists() or (ROOT / name).exists(), f"{page.name} names {name}"


def test_the_layers_of_the_documents_are_those_that_are_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [contract] = [c for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "layers"]
    shown = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for layer in contract["layers"]:
        rooms = [room.strip(" ()") for room in layer.split("|") if not room.strip().startswith("(")]
        assert " | ".join(rooms) in shown


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))], ids=str)
def test_documents_speak_of_the_project_alone(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])/(?:work|tmp|root|home)/", text)


def test_ci_is_a_program() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_licence_is_the_one_that_the_project_declares() -> None:
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    assert "The Phantoms authors" in licence
