"""The README tells the truth: its tables are made of the code, its commands exist, its files are there, its examples work.

`python -m phantoms_dagster_tests.unit.test_readme` writes the tables anew.
"""

from __future__ import annotations

import ast
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_core import PydanticUndefined

from phantoms_dagster.domain import channels
from phantoms_dagster.production.intake import FIELDS, SUFFIXES
from phantoms_dagster.sandbox.core import Fault
from phantoms_dagster.settings import Settings, is_secret
from phantoms_dagster_tests.program import whole_program

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = ("pip install uv && uv run phantoms demo", "pip install uv && uv run pytest")


def settings_table() -> str:
    """Every setting: its variable, its default and its meaning."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        assert field.default is not PydanticUndefined, f"{name} has no default"
        assert field.description, f"{name} says nothing about itself"
        default = "unset" if field.default is None else f"`{field.default}`"
        rows.append(f"| `PHANTOMS_{name.upper()}` | {default} | {field.description.replace('|', '&#124;')} |")
    return "\n".join(rows)


def rooms_table() -> str:
    """Every room of the package, with the first line of what it says about itself."""
    rows = ["| in the repository | |", "| --- | --- |"]
    for entry in sorted((ROOT / "phantoms_dagster").iterdir()):
        source = entry / "__init__.py" if entry.is_dir() else entry
        if not source.is_file() or source.suffix != ".py" or source == ROOT / "phantoms_dagster" / "__init__.py":
            continue
        docstring = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
        slash = "/" if entry.is_dir() else ""
        rows.append(f"| `phantoms_dagster/{entry.name}{slash}` | {docstring.splitlines()[0]} |")
    rows.append(
        "| `phantoms_dagster_tests/` | unit, contract (adapters against the sandbox), integration (real servers) and more |"
    )
    pages = "[architecture.md](docs/architecture.md), [scaling.md](docs/scaling.md)"
    rows.append(f"| `docs/` | {pages} and the decisions, one [ADR](docs/adr) each |")
    return "\n".join(rows)


def with_tables(readme: str) -> str:
    """The README with its generated parts as the code has them now."""
    for mark, lines in (("rooms", rooms_table()), ("settings", settings_table())):
        start, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
        before, rest = readme.split(start)
        after = rest.split(end)[1]
        readme = f"{before}{start}{lines}\n{end}{after}"
    return readme


def blocks(language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def words_of(line: str) -> list[str]:
    return shlex.split(line, comments=True)


def command_lines() -> list[list[str]]:
    """Every call of `phantoms` in the README, in code blocks and in running text."""
    lines = [line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`((?:uv run )?phantoms [^`]*)`", README)
    calls = []
    for line in lines:
        words = words_of(line.rpartition("&& ")[2])
        words = words[2:] if words[:2] == ["uv", "run"] else words
        if words[:1] == ["phantoms"]:
            calls.append(words[1:])
    return calls


def test_the_tables_are_those_of_the_code() -> None:
    assert with_tables(README) == README, "run: python -m phantoms_dagster_tests.unit.test_readme"


def test_every_command_and_option_in_the_readme_exists() -> None:
    group: Any = whole_program()
    calls = command_lines()
    assert {"up", "demo", "add", "import", "status", "show", "approve", "reject", "sandbox", "doctor"} <= {c[0] for c in calls}
    for call in calls:
        command, words = group, list(call)
        while words and not words[0].startswith("-") and (command is group or words[0] in getattr(command, "commands", {})):
            assert words[0] in command.commands, f"there is no `phantoms {words[0]}`"
            command = command.commands[words.pop(0)]
        alone = all(word.startswith("-") for word in words)
        assert not hasattr(command, "commands") or alone, f"there is no `phantoms {' '.join(call)}`"
        options = {option for parameter in command.params for option in parameter.opts}
        for word in words:
            assert not word.startswith("--") or word in options, f"`phantoms {' '.join(call)}`: no {word}"


def test_every_command_of_the_program_is_in_the_readme() -> None:
    group: Any = whole_program()
    assert set(group.commands) <= {call[0] for call in command_lines() if call}


def test_the_two_commands_are_those_that_ci_runs_and_the_project_installs() -> None:
    code = [line for block in blocks("sh") for line in block.splitlines()]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert [line for line in code if line.startswith("pip ")] == list(COMMANDS)
    assert "pip install uv" in script
    assert re.search(r"^uv run pytest\b", script, re.MULTILINE)
    assert "phantoms" in project["project"]["scripts"]


def test_what_the_readme_links_to_is_there() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_pictures_are_small_enough_to_load_at_once() -> None:
    sizes = {name: (ROOT / "docs" / name).stat().st_size for name in ("asset-graph.png", "thumbnail.png", "video.jpg")}
    assert sizes["asset-graph.png"] < 300_000
    assert sizes["thumbnail.png"] < 300_000
    assert sizes["video.jpg"] <= 150_000


def test_the_columns_are_those_that_intake_takes() -> None:
    table = README.split("| column | |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(FIELDS)
    assert {".csv", ".jsonl", ".yaml"} <= set(SUFFIXES)


def test_every_variable_in_the_readme_is_a_setting() -> None:
    known = {f"PHANTOMS_{name.upper()}" for name in Settings.model_fields}
    known |= {f"PHANTOMS_{name.upper()}_FILE" for name, field in Settings.model_fields.items() if is_secret(field.annotation)}
    assert set(re.findall(r"PHANTOMS_[A-Z_]+[A-Z]", README)) <= known


# Dagster deprecates an argument that the jobs still give; here only their config matters.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("config", [yaml.safe_load(block) for block in blocks("yaml")], ids=lambda c: next(iter(c["ops"])))
def test_the_run_configs_in_the_readme_are_what_dagster_accepts(config: dict[str, Any]) -> None:
    from dagster import validate_run_config  # noqa: PLC0415  imported here for the filter above, and slow

    from phantoms_dagster.defs.build import build_definitions  # noqa: PLC0415

    [name] = config["ops"]
    job = build_definitions().resolve_job_def(f"{name}_job")
    assert validate_run_config(job, config)["ops"][name]["config"]


def test_the_fault_in_the_readme_is_one_that_the_sandbox_takes() -> None:
    [given] = re.findall(r"-d '(\{.*\})'", README)
    assert Fault(**yaml.safe_load(given)).route == "shotstack.render"
    named = README.split("Faults are ")[1].split("; `route`")[0]
    assert set(re.findall(r"`(\w+)`", named)) == set(Fault.KINDS)


def test_the_default_channel_is_named_as_the_readme_says() -> None:
    assert channels.parse(channels.default_text())
    assert "posting_hours" in channels.default_text()


if __name__ == "__main__":
    (ROOT / "README.md").write_text(with_tables(README), encoding="utf-8")
    sys.stdout.write("README.md is up to date\n")
