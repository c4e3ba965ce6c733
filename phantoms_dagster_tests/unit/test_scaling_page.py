"""docs/scaling.md tells the truth: commands, services, variables and secrets are those of the program and of the compose file."""

from __future__ import annotations

import re
import shlex
from typing import Any

import yaml

from phantoms_dagster.settings import Settings
from phantoms_dagster.settings.leaves import leaves
from phantoms_dagster_tests.compose_file import ROOT, compose, text
from phantoms_dagster_tests.program import whole_program

PAGE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
PROSE = " ".join(re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL).split())
CODE = [*LINES, *re.findall(r"`([^`]+)`", PROSE)]


def test_its_variables_are_settings_or_those_of_the_compose_file() -> None:
    asked = set(re.findall(r"\$\{(\w+)", text()))
    known = {leaf.variable for leaf in leaves(Settings).values()}
    known |= {leaf.file_variable for leaf in leaves(Settings).values() if leaf.file_variable}
    assert set(re.findall(r"PHANTOMS_[A-Z_]+[A-Z]", PAGE)) <= known | asked
    [listed] = re.findall(r"`\.env` has what the file itself asks for:(.*?)\. Every", PROSE)
    assert set(re.findall(r"`(\w+)`", listed)) == asked


def test_its_secrets_are_all_that_the_compose_file_wants() -> None:
    made = {name for line in LINES for name in re.findall(r"^for name in (.*?)(?:;|$)", line)}
    made = {name for names in made for name in names.split()} | set(re.findall(r"> secrets/(\w+)", PAGE))
    assert made == set(compose().spec["secrets"])


def test_its_docker_commands_name_services_that_are_there() -> None:
    services = set(compose().services)
    named = re.findall(r"docker compose (?:exec|run|restart|stop)(?: --?\w+)* (\w[\w -]*)", "\n".join(CODE))
    named = [words.split() for words in named]
    assert len(named) >= 4
    for words in named:
        asked = words[:1] if "phantoms" in words or "pg_dump" in words else words
        assert set(asked) <= services, words
    assert set(re.findall(r"([\w-]+):/data/", "\n".join(CODE))) <= services
    assert set(re.findall(r"--scale ([\w-]+)=", PAGE)) <= services
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL):
        assert set(yaml.safe_load(block)["services"]) <= services


def test_its_phantoms_commands_exist_with_their_options() -> None:
    group: Any = whole_program()
    calls = [shlex.split(found) for line in CODE for found in re.findall(r"(?:^|worker )phantoms ([^#|;]*)", line)]
    assert {call[0] for call in calls} >= {"worker", "init", "up", "doctor", "pools", "unretire", "breakers"}
    for name, *words in calls:
        command = group.commands[name]
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, (name, words)
