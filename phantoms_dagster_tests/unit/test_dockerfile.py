"""The Dockerfile: it copies only the files that it names, runs as an ordinary user, and compiles everything."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib

import pytest

from phantoms_dagster_tests.compose_file import ROOT, compose, instructions

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
DOCKERIGNORE = (ROOT / ".dockerignore").read_text(encoding="utf-8")


def dockerfile_problems(content: str, ignore: str = DOCKERIGNORE) -> list[str]:
    """What is wrong with the image's recipe."""
    steps = instructions(content)
    last = max(step.stage for step in steps)
    copied = [word for s in steps if s.name == "COPY" and not s.flags for word in s.words[:-1]]
    allowed = {line[1:].strip() for line in ignore.splitlines() if line.startswith("!")}
    users = [step.words[0] for step in steps if step.name == "USER" and step.stage == last]
    variables = [word for s in steps if s.name in ("ENV", "ARG") for word in s.words]
    found = [f"{word} is not there" for word in copied if not (ROOT / word).exists()]
    found += [f"{word} is a whole context" for word in copied if word in (".", "./", "*")]
    found += [f"{word} is not let into the context" for word in copied if word not in allowed]
    found += [f"{word} is let into the context and not copied" for word in allowed - set(copied)]
    found += ["ADD"] if any(step.name == "ADD" for step in steps) else []
    found += [f"{v} looks like a secret" for v in variables if re.match(r"\w*(PASSWORD|SECRET|TOKEN|API_KEY)\w*(=|$)", v)]
    found += [f"{s.words[0]} names a host" for s in steps if s.name == "FROM" and re.match(r"[^/]+\.[^/]+/", s.words[0])]
    found += [f"it names a host: {url}" for url in re.findall(r"https?://\S+", content)]
    found += [] if "*" in ignore.splitlines() else ["the context is not empty at first"]
    if not users or not re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", users[-1]):
        found.append("the last stage does not end as an ordinary user with a fixed number")
    if last < 1:
        found.append("what builds is in what runs")
    if "UV_COMPILE_BYTECODE=1" not in variables:
        found.append("nothing is compiled, and on a read-only root nothing ever will be")
    if not any(s.name == "VOLUME" and s.words == ("/data",) for s in steps):
        found.append("no volume for the data")
    return found


def test_the_image_is_built_from_files_that_exist_and_runs_as_an_ordinary_user() -> None:
    assert dockerfile_problems(DOCKERFILE) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("USER 10001:10001\n", ""),
        ("USER 10001:10001", "USER root"),
        ("USER 10001:10001", "USER 0:0"),
        ("COPY phantoms_dagster ./phantoms_dagster", "COPY . ."),
        ("COPY phantoms_dagster ./phantoms_dagster", "ADD phantoms_dagster ./phantoms_dagster"),
        ("COPY pyproject.toml README.md", "COPY pyproject.toml uv.lock"),
        ("COPY pyproject.toml README.md", "COPY pyproject.toml NOT_THERE"),
        ("    UV_LINK_MODE=copy", "    PHANTOMS_OPENAI_API_KEY=sk-1"),
        ("ENV UV_COMPILE_BYTECODE=1 ", "ENV UV_COMPILE_BYTECODE=0 "),
        ("FROM python:3.11-slim\n", "FROM registry.example.org/python:3.11-slim\n"),
        ("FROM python:3.11-slim\n", ""),
        ("VOLUME /data\n", ""),
    ],
)
def test_a_broken_recipe_is_noticed(before: str, after: str) -> None:
    assert before in DOCKERFILE
    assert dockerfile_problems(DOCKERFILE.replace(before, after))


@pytest.mark.parametrize(("before", "after"), [("*\n!py", "!py"), ("!LICENSE", "!LICENSE\n!secrets"), ("!dagster.yaml\n", "")])
def test_a_context_with_more_or_less_than_is_copied_is_noticed(before: str, after: str) -> None:
    assert before in DOCKERIGNORE
    assert dockerfile_problems(DOCKERFILE, DOCKERIGNORE.replace(before, after))


def test_the_image_and_the_services_agree_on_the_data_directory() -> None:
    variables = dict(word.split("=", 1) for s in instructions(DOCKERFILE) if s.name == "ENV" for word in s.words)
    places = {volume.partition(":")[2] for service in compose().ours for volume in service.spec["volumes"]}
    assert places == {variables["PHANTOMS_HOME"]}


def test_everything_that_our_wheel_is_made_of_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {project["project"]["readme"], *project["project"]["license-files"], *wheel["packages"], *wheel["force-include"]}
    copied = {word for s in instructions(DOCKERFILE) if s.name == "COPY" and not s.flags for word in s.words[:-1]}
    assert copied == needed | {"pyproject.toml"}


def test_hadolint_finds_nothing() -> None:
    program = shutil.which("hadolint")
    if program is None:
        pytest.skip("no hadolint here")
    done = subprocess.run([program, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
