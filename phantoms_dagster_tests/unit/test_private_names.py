"""Private names of other libraries: all in `private`, all in a table, and none that Phantoms cannot do without."""

from __future__ import annotations

import ast
import importlib
import inspect
import logging
import os
import pkgutil
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

import phantoms_dagster
from phantoms_dagster.private import dagster as private
from phantoms_dagster.private import grpc as private_grpc

PACKAGE = Path(phantoms_dagster.__file__).parent
HOME = PACKAGE / "private"
# Public in spite of their underscore: named tuples have them, and leaving a fork at once has no other name.
PUBLIC = {"_replace", "_asdict", "_fields", "_exit"}
LIBRARIES = ("dagster", "dagster_postgres", "dagster_webserver", "dagster_graphql", "rq", "redis", "uvicorn", "psycopg", "grpc")
# Run by path, or by Alembic alone.
APART = ("phantoms_dagster.store.migrations", "phantoms_dagster.embedded.bootstrap")


def private_imports(source: str) -> list[str]:
    """Imports of private modules and names, however they are written, and private modules that are named in a text."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            found += [f"from {node.module}"] if node.module != "__future__" and any(n.startswith("_") for n in names) else []
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if "._" in f".{alias.name}"]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += re.findall(rf"^(?:{'|'.join(LIBRARIES)})\.(?:\w+\.)*_\w+", node.value)
    return found


def private_attributes(source: str) -> Iterator[str]:
    """Private attributes of anything but `self`, read or written, and those that `getattr` and its like are given by name."""
    for node in ast.walk(ast.parse(source)):
        name, owner = "", ""
        if isinstance(node, ast.Attribute):
            name, owner = node.attr, ast.unparse(node.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr", "hasattr"):
            given = node.args[1]
            name = given.value if isinstance(given, ast.Constant) and isinstance(given.value, str) else ""
        if name.startswith("_") and not name.startswith("__") and owner not in ("self", "cls") and name not in PUBLIC:
            yield f"{owner}.{name}"


def test_an_import_of_a_private_name_is_seen_however_it_is_written() -> None:
    for source in (
        "from dagster._core.events import DagsterEvent",
        "from dagster import _check",
        "import dagster._daemon.sensor",
        "if True:\n    from rq._x import y",
        "importlib.import_module('dagster._core.events')",
    ):
        assert private_imports(source), source
    assert not private_imports("from __future__ import annotations\nimport dagster as dg\nx = 'dagster.yaml'")
    assert list(private_attributes("worker._stop_requested\nsetattr(x, '_y', 1)\nself._mine\nref._replace()")) == [
        "worker._stop_requested",
        "._y",
    ]


def test_private_names_are_imported_in_their_own_room_alone() -> None:
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != HOME]
    found = {str(path.relative_to(PACKAGE)): private_imports(path.read_text(encoding="utf-8")) for path in paths}
    assert {path: names for path, names in found.items() if names} == {}


def test_every_private_attribute_of_others_is_in_the_table_or_ours() -> None:
    """Attributes of objects that are not `self`: ours have a definition in the same file."""
    declared = {need.partition("(")[0].rpartition(".")[2] for path in private.PATHS.values() for need in path.needs}
    declared |= set(private.__all__) | {"_engine"}  # set together with what replaces it, in the fast path `storage`
    for path in PACKAGE.rglob("*.py"):
        if path.parent == HOME:
            continue
        source = path.read_text(encoding="utf-8")
        for used in private_attributes(source):
            name = used.rpartition(".")[2]
            ours = re.search(rf"def {name}\b|self\.{name}\b|^\s*{name}\s*[:=]", source, re.MULTILINE)
            assert ours or name in declared, f"{path.relative_to(PACKAGE)}: {used}"


@pytest.mark.slow
def test_every_private_name_of_a_foreign_base_class_is_in_the_table() -> None:
    """What our classes inherit, override or set with an underscore belongs to others as well, although it reads `self._x`."""
    declared = {need.partition("(")[0].rpartition(".")[2] for path in private.PATHS.values() for need in path.needs}
    # The three parts and their owner's data: set in full by the fast path, which does not call the constructor that sets them.
    declared |= {"_run_storage", "_event_log_storage", "_schedule_storage", "_inst_data", "_engine"}
    seen = 0
    for module in pkgutil.walk_packages(phantoms_dagster.__path__, "phantoms_dagster."):
        if module.name.startswith(APART) or module.name.endswith("__main__"):
            continue
        for mine in vars(importlib.import_module(module.name)).values():
            if not inspect.isclass(mine) or mine.__module__ != module.name or "[" in mine.__qualname__:  # pydantic makes `Base[T]`
                continue
            foreign = [base for base in mine.__mro__[1:] if base.__module__.partition(".")[0] in LIBRARIES]
            if not foreign:
                continue
            seen += 1
            source = textwrap.dedent(inspect.getsource(mine))
            used = set(re.findall(r"(?:self|cls|super\(\))\.(_[a-z]\w*)|def (_[a-z]\w*)", source))
            names = {a or b for a, b in used}
            theirs = {name for base in foreign for name in vars(base)}
            theirs |= {name for base in foreign for name in re.findall(r"self\.(_[a-z]\w*)", inspect.getsource(base))}
            assert (names & theirs) - declared == set(), mine
    assert seen >= 8


# --- the table


def test_the_installed_dagster_has_all_that_the_fast_paths_need() -> None:
    assert {path: private.problem_of(path) for path in private.PATHS} == dict.fromkeys(private.PATHS, "")
    assert dg.__version__ == private.READ_AT, "read the code behind each entry of the table again, then say so in READ_AT"


def test_every_fast_path_says_what_it_saves_and_what_is_used_instead() -> None:
    for path in private.PATHS.values():
        assert path.saves, path.name
        assert path.instead, path.name


def test_what_is_handed_out_is_what_the_table_names() -> None:
    assert set(private.__all__) <= set(private._places())
    for name in private.__all__:
        assert getattr(private, name) is not None


NEEDS = [(path.name, need) for path in private.PATHS.values() for need in path.needs]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What was found and said before is forgotten, before and after."""
    monkeypatch.setenv("PHANTOMS_DAGSTER_FAST_PATHS", "auto")
    private.problem_of.cache_clear()
    private._warn.cache_clear()
    yield
    private.problem_of.cache_clear()
    private._warn.cache_clear()


@pytest.mark.parametrize(("path", "need"), NEEDS, ids=[need for _, need in NEEDS])
@pytest.mark.usefixtures("fresh")
def test_a_name_that_has_gone_costs_its_fast_path_and_one_warning(
    path: str, need: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hidden, take = need.partition("(")[0], private._take

    def without(where: str) -> object:
        if where == hidden:
            raise AttributeError(where)
        return take(where)

    monkeypatch.setattr(private, "_take", without)
    others = [name for name in private.PATHS if hidden not in [n.partition("(")[0] for n in private.PATHS[name].needs]]
    assert [private.usable(path), private.usable(path)] == [False, False]
    assert all(private.usable(other) for other in others)
    [line] = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING and f"{path!r}" in r.getMessage()]
    assert f"Dagster {dg.__version__} is installed" in line
    assert f"{hidden.replace(':', '.')} is missing" in line
    assert f"Install dagster=={private.READ_AT}" in line
    monkeypatch.setenv("PHANTOMS_DAGSTER_FAST_PATHS", "on")
    with pytest.raises(private.ChangedDagster, match="is installed"):
        private.usable(path)


@pytest.mark.usefixtures("fresh")
def test_a_function_that_takes_other_arguments_counts_as_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    take = private._take
    monkeypatch.setattr(private, "_take", lambda where: (lambda state: state) if "is_under_min" in where else take(where))
    assert "takes (state) instead of (state,remote_sensor,minimum_allowed_min_interval)" in private.problem_of("daemon")
    assert not private.usable("daemon")


def test_off_takes_no_fast_path_although_all_could_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHANTOMS_DAGSTER_FAST_PATHS", "off")
    assert not any(private.usable(path) for path in private.PATHS)


def test_the_classes_that_ours_derive_from_are_found_by_way_of_public_objects() -> None:
    for name, road in private._ROADS.items():
        assert road() is private._take(private._places()[name]), name


# Hides names of Dagster from all code except Dagster's own, as if a new version had renamed them.
HIDING = """
import os, sys, importlib
from phantoms_dagster.private import dagster as private
hidden = set(sys.argv[1].split(","))
take = private._take
def without(where):
    if where.partition(":")[0] in hidden:
        raise ModuleNotFoundError(where)
    return take(where)
private._take = without
for module in ("launcher", "storage", "compute_logs", "run_worker", "reaper", "daemon", "webserver", "worker"):
    importlib.import_module(f"phantoms_dagster.execution.{module}")
from phantoms_dagster.definitions import defs
private.check()
from phantoms_dagster.execution.launcher import RqRunLauncher
print([base.__module__ for base in RqRunLauncher.__mro__ if base.__name__ == "RunLauncher"])
"""


@pytest.mark.slow
def test_a_dagster_without_any_of_the_names_still_loads_everything_and_warns_once_for_each_path() -> None:
    modules = {need.partition(":")[0] for _, need in NEEDS if need.startswith("dagster._")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PHANTOMS_")}
    done = subprocess.run(
        [sys.executable, "-c", HIDING, ",".join(modules)], env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['dagster._core.launcher.base']"
    warned = [line for line in done.stderr.splitlines() if " is installed, and the fast path " in line]
    assert len(warned) == len(private.PATHS)


def test_a_grpc_without_its_private_name_costs_calm_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    common = importlib.import_module("grpc._common")
    monkeypatch.setattr(common, "MAXIMUM_WAIT_TIMEOUT", common.MAXIMUM_WAIT_TIMEOUT)
    assert private_grpc.wait_calmly(2.0)
    assert common.MAXIMUM_WAIT_TIMEOUT == 2.0
    monkeypatch.delattr(common, "MAXIMUM_WAIT_TIMEOUT")
    assert not private_grpc.wait_calmly(2.0)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
