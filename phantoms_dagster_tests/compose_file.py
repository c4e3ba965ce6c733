"""docker-compose.yml as `docker compose` understands it, and the Dockerfile as instructions. What must be true is in the tests."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
IMAGE = "phantoms:"

_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?::-(?P<default>[^${}]*))?\})")


@dataclass(frozen=True)
class Service:
    """One service of the file."""

    name: str
    spec: Mapping[str, Any]

    @property
    def ours(self) -> bool:
        """Whether it runs our image."""
        return str(self.spec["image"]).startswith(IMAGE)

    @property
    def command(self) -> list[str]:
        """What it runs."""
        return [str(word) for word in self.spec.get("command", ())]

    @property
    def health(self) -> list[str] | None:
        """The command that asks for its health, as a list for exec."""
        test = self.spec.get("healthcheck", {}).get("test")
        if test is None:
            return None
        return [str(word) for word in test[1:]] if test[0] == "CMD" else ["sh", "-c", str(test[1])]

    @property
    def environment(self) -> dict[str, str]:
        """Its variables."""
        return {name: str(value) for name, value in self.spec.get("environment", {}).items()}

    @property
    def secrets(self) -> list[str]:
        """The secrets it gets."""
        return list(self.spec.get("secrets", ()))


@dataclass(frozen=True)
class Compose:
    """The whole file."""

    spec: Mapping[str, Any]

    @property
    def services(self) -> dict[str, Service]:
        """All services by name."""
        return {name: Service(name, spec) for name, spec in self.spec["services"].items()}

    @property
    def ours(self) -> list[Service]:
        """The services that run our image, in the order of the file, which is that of their start."""
        return [service for service in self.services.values() if service.ours]


def text() -> str:
    """The file."""
    return (ROOT / "docker-compose.yml").read_text(encoding="utf-8")


def compose(content: str | None = None, **variables: str) -> Compose:
    """The file, or another one, with its variables put in."""
    return Compose(_filled(yaml.safe_load(content or text()), variables))


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    match value:
        case str():
            return _put_in(value, variables)
        case dict():
            return {name: _filled(inner, variables) for name, inner in value.items()}
        case list():
            return [_filled(inner, variables) for inner in value]
        case _:
            return value


def _put_in(words: str, variables: Mapping[str, str]) -> str:
    """Defaults may hold variables themselves, so the innermost are put in first."""
    dollar = "\0"

    def one(found: re.Match[str]) -> str:
        if found["dollar"]:
            return dollar
        if found["default"] is None:
            return variables.get(found["name"], "")
        return variables.get(found["name"]) or found["default"]

    while (after := _VARIABLE.sub(one, words)) != words:
        words = after
    assert "${" not in words, f"cannot read {words}"
    return words.replace(dollar, "$")


def client() -> list[str] | None:
    """`docker compose`, or the program of that name, where there is one."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False, timeout=60)
            if done.returncode == 0 and re.match(r"v?[2-9]\.", done.stdout):
                return command
    return None


# ------------------------------------------------------------------ Dockerfile


@dataclass(frozen=True)
class Instruction:
    """One instruction: `COPY`, its flags, its words."""

    name: str
    flags: tuple[str, ...]
    words: tuple[str, ...]
    stage: int


def instructions(content: str) -> list[Instruction]:
    """The Dockerfile's instructions, in order. `stage` counts the FROMs, from 0."""
    found: list[Instruction] = []
    stage = -1
    lines = "\n".join(line for line in content.splitlines() if not line.lstrip().startswith("#"))
    for line in lines.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        name, *words = line.split()
        stage += name.upper() == "FROM"
        flags = tuple(word for word in words if word.startswith("--") and name.upper() in ("COPY", "ADD", "FROM"))
        found.append(Instruction(name.upper(), flags, tuple(word for word in words if word not in flags), stage))
    return found
