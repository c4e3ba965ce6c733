"""channels.yaml: from its text to channels, with errors that name the place. Reading the file belongs to `wiring`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

import yaml
from pydantic import ValidationError

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Channel


def default_text() -> str:
    """The channels.yaml that a fresh installation gets: one channel on all platforms, with every key explained."""
    return files("phantoms_dagster.domain").joinpath("channels_default.yaml").read_text(encoding="utf-8")


def parse(content: str, *, name: str = "channels.yaml") -> dict[str, Channel]:
    """The channels, by name; the first is the default one. Raises InvalidInput that names file, channel and key."""
    try:
        document = yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise InvalidInput(f"{name} is not valid YAML: {error}") from error
    entries = document.get("channels") if isinstance(document, Mapping) else None
    if not isinstance(entries, Mapping) or not entries:
        raise InvalidInput(f"{name} needs a mapping `channels:` with at least one channel")
    channels: dict[str, Channel] = {}
    for key, fields in entries.items():
        if not isinstance(fields, Mapping):
            raise InvalidInput(f"{name}: channel {key!r} must be a mapping of settings")
        try:
            channels[str(key)] = Channel.model_validate({"name": str(key), **fields})
        except ValidationError as error:
            raise InvalidInput(f"{name}: channel {key!r}: {first_problem(error)}") from error
    return channels


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, in words: `facts.0: should have at most 500 characters`."""
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
