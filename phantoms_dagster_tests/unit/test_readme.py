"""The documents tell the truth: tables are made of the code, commands exist, files are there, and examples work.

`python -m phantoms_dagster_tests.unit.test_readme` writes the tables again.
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
from phantoms_dagster.settings import Settings
from phantoms_dagster.settings.leaves import groups, leaves, leaves_of
from phantoms_dagster_tests.compose_file import text as compose_text
from phantoms_dagster_tests.program import whole_program

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
README, GUIDE, SANDBOX = TEXT["README.md"], TEXT["guide.md"], TEXT["sandbox.md"]
COMMANDS = ("pip install uv && uv run phantoms demo", "pip install uv && uv run pytest")


def settings_table() -> str:
    """Every setting by its group: its variable, its default and its meaning."""
    rows: list[str] = []
    for path, group in groups(Settings):
        text = (group.__doc__ or "").splitlines()[0]
        assert text, f"{group.__name__} says nothing about itself"
        rows += [f"{'#' * (len(path) + 1)} {' '.join(path)}", "", text, ""]
        found = list(leaves_of(group, path))
        rows += ["| variable | default | meaning |", "| --- | --- | --- |"] if found else []
        for leaf in found:
            assert leaf.field.default is not PydanticUndefined, f"{leaf.variable} has no default"
            assert leaf.description, f"{leaf.variable} says nothing about itself"
            default = "unset" if leaf.field.default is None else f"`{leaf.field.default}`"
            rows.append(f"| `{leaf.variable}` | {default} | {leaf.description.replace('|', '&#124;')} |")
        rows += [""] if found else []
    return "\n".join(rows).rstrip()


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
    rows.append("| `docs/` | the pages of the site, and the [decisions](docs/adr/index.md) |")
    return "\n".join(rows)


def decisions_table() -> str:
    """Every decision with its status and its date, as its page says them."""
    rows = ["| decision | status | date |", "| --- | --- | --- |"]
    for page in sorted((ROOT / "docs" / "adr").glob("0*.md")):
        heading, _, status, *_ = page.read_text(encoding="utf-8").splitlines()
        found = re.match(r"Status: ([^,.]+), (\d{4}-\d\d-\d\d)\.", status)
        assert found, f"{page.name} says no status and date below its title"
        rows.append(f"| [{heading.removeprefix('# ')}]({page.name}) | {found[1]} | {found[2]} |")
    return "\n".join(rows)


TABLES = {
    "rooms": (ROOT / "CONTRIBUTING.md", rooms_table),
    "settings": (ROOT / "docs" / "settings.md", settings_table),
    "decisions": (ROOT / "docs" / "adr" / "index.md", decisions_table),
}


def with_table(mark: str) -> str:
    """The page with its table regenerated from the code."""
    page, table = TABLES[mark]
    start, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
    before, rest = page.read_text(encoding="utf-8").split(start)
    return f"{before}{start}{table()}\n{end}{rest.split(end)[1]}"


def blocks(language: str, text: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def words_of(line: str) -> list[str]:
    return shlex.split(line, comments=True)


def command_lines(text: str) -> list[list[str]]:
    """Every call of `phantoms` on a page, in code blocks and in running text."""
    lines = [line for block in blocks("sh", text) for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`((?:uv run )?phantoms [^`]*)`", text)
    calls = []
    for line in lines:
        words = words_of(line.rpartition("&& ")[2])
        words = words[2:] if words[:2] == ["uv", "run"] else words
        if words[:1] == ["phantoms"]:
            calls.append(words[1:])
    return calls


@pytest.mark.parametrize("mark", TABLES)
def test_the_tables_are_those_of_the_code(mark: str) -> None:
    assert with_table(mark) == TABLES[mark][0].read_text(encoding="utf-8"), "run: just tables"


def test_the_readme_is_short_and_has_what_people_do_most() -> None:
    assert len(README.splitlines()) <= 150
    assert {"up", "demo", "add", "import", "status", "open", "show", "approve", "doctor"} <= {c[0] for c in command_lines(README)}


@pytest.mark.parametrize("page", sorted(TEXT))
def test_every_command_and_option_on_the_pages_exists(page: str) -> None:
    group: Any = whole_program()
    calls = command_lines(TEXT[page])
    for call in calls:
        command, words = group, list(call)
        while words and not words[0].startswith("-") and (command is group or words[0] in getattr(command, "commands", {})):
            assert words[0] in command.commands, f"there is no `phantoms {words[0]}`"
            command = command.commands[words.pop(0)]
        alone = not words or words[0].startswith("-")
        assert not hasattr(command, "commands") or alone, f"there is no `phantoms {' '.join(call)}`"
        options = {option for parameter in command.params for option in parameter.opts}
        for word in words:
            assert not word.startswith("--") or word in options, f"`phantoms {' '.join(call)}`: no {word}"


def test_every_command_of_the_program_is_on_a_page() -> None:
    group: Any = whole_program()
    assert set(group.commands) <= {call[0] for text in TEXT.values() for call in command_lines(text) if call}


def test_the_two_commands_are_those_that_ci_runs_and_the_project_installs() -> None:
    code = [line for block in blocks("sh", README) for line in block.splitlines()]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert [line for line in code if line.startswith("pip ")] == list(COMMANDS)
    assert "pip install uv" in script
    assert re.search(r"^uv run pytest\b", script, re.MULTILINE)
    assert "phantoms" in project["project"]["scripts"]


def test_what_the_pages_link_to_is_there() -> None:
    pages = [ROOT / "CHANGELOG.md", *PAGES, *sorted((ROOT / "docs" / "adr").glob("*.md"))]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_pictures_are_small_enough_to_load_at_once() -> None:
    sizes = {name: (ROOT / "docs" / name).stat().st_size for name in ("asset-graph.png", "thumbnail.png", "video.jpg")}
    assert sizes["asset-graph.png"] < 300_000
    assert sizes["thumbnail.png"] < 300_000
    assert sizes["video.jpg"] <= 150_000


def test_the_columns_are_those_that_intake_takes() -> None:
    table = GUIDE.split("| column | |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(FIELDS)
    assert {".csv", ".jsonl", ".yaml"} <= set(SUFFIXES)


@pytest.mark.parametrize("page", sorted(TEXT))
def test_every_variable_on_the_pages_is_a_setting(page: str) -> None:
    known = {leaf.variable for leaf in leaves(Settings).values()}
    known |= {leaf.file_variable for leaf in leaves(Settings).values() if leaf.file_variable}
    known |= set(re.findall(r"\$\{(PHANTOMS_\w+)", compose_text()))  # what the compose file itself asks for
    assert set(re.findall(r"PHANTOMS_[A-Z_]+[A-Z]", TEXT[page])) <= known


# Dagster deprecates an argument that the jobs still give; here only their config matters.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("config", [yaml.safe_load(block) for block in blocks("yaml", GUIDE)], ids=lambda c: next(iter(c["ops"])))
def test_the_run_configs_in_the_guide_are_what_dagster_accepts(config: dict[str, Any]) -> None:
    from dagster import validate_run_config  # noqa: PLC0415  imported here for the filter above, and slow

    from phantoms_dagster.defs.build import build_definitions  # noqa: PLC0415

    [name] = config["ops"]
    job = build_definitions().resolve_job_def(f"{name}_job")
    assert validate_run_config(job, config)["ops"][name]["config"]


def test_the_fault_in_the_documents_is_one_that_the_sandbox_takes() -> None:
    [given] = re.findall(r"/_sandbox/faults \\\n +-d '(\{.*\})'", SANDBOX)
    assert Fault(**yaml.safe_load(given)).route == "shotstack.render"
    named = SANDBOX.split("Faults are ")[1].split("; `route`")[0]
    assert set(re.findall(r"`(\w+)`", named)) == set(Fault.KINDS)


def test_the_default_channels_explain_what_the_guide_names() -> None:
    assert channels.parse(channels.default_text())
    assert "posting_hours" in channels.default_text()


def test_the_version_of_the_project_has_a_date_in_the_changelog() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    version = re.escape(project["project"]["version"])
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{version}\] - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE)


def test_ci_and_the_hooks_run_the_tasks_that_the_justfile_has() -> None:
    just = (ROOT / "justfile").read_text(encoding="utf-8")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    [called] = re.findall(r"^uv run just (.*)$", script, re.MULTILINE)
    assert set(called.split()) <= set(re.findall(r"^([a-z][a-z-]*)[^:=\n]*:", just, re.MULTILINE))
    assert [repo["repo"] for repo in hooks["repos"]] == ["local"]
    linters = re.findall(r"^    uv run ((?:ruff \S+|mypy|lint-imports))", just, re.MULTILINE)
    for hook in hooks["repos"][0]["hooks"]:
        assert any(hook["entry"].startswith(f"uv run {linter}") for linter in linters), hook["entry"]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert {"run": ".ci/run"} in workflow["jobs"]["everything"]["steps"]


def test_every_page_is_in_the_menu_of_the_site() -> None:
    site = tomllib.loads((ROOT / ".zensical.toml").read_text(encoding="utf-8"))["project"]
    assert set(re.findall(r"[\w-]+\.md", str(site["nav"]))) == {"index.md", *(p.name for p in (ROOT / "docs").glob("*.md"))}
    assert site["theme"]["font"] is False


if __name__ == "__main__":
    for mark, (page, _) in TABLES.items():
        page.write_text(with_table(mark), encoding="utf-8")
        sys.stdout.write(f"{page.relative_to(ROOT)} is up to date\n")
