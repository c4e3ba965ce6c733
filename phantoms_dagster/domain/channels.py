"""channels.yaml: from its text to channels, with errors that name the place. Reading the file belongs to `wiring`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from importlib.resources import files
from typing import Any

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
        document = yaml.load(content, Loader=_Loader)  # noqa: S506  a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: a date that does not exist.
        raise InvalidInput(f"{name} is not valid YAML: {_where(error)}") from error
    entries = document.get("channels") if isinstance(document, Mapping) else None
    if not isinstance(entries, Mapping) or not entries:
        raise InvalidInput(f"{name} needs a mapping `channels:` with at least one channel")
    unknown = [key for key in document if key != "channels"]
    if unknown:
        raise InvalidInput(f"{name}: unknown key {unknown[0]!r} beside `channels`")
    return {str(key): _channel(str(key), fields, f"{name}: channel {key!r}") for key, fields in entries.items()}


def _channel(key: str, fields: Any, place: str) -> Channel:
    if not isinstance(fields, Mapping):
        raise InvalidInput(f"{place} must be a mapping of settings")
    if "name" in fields:
        raise InvalidInput(f"{place}: name: the channel's name is its key; remove this line")
    try:
        return Channel.model_validate({"name": key, **fields})
    except ValidationError as error:
        raise InvalidInput(f"{place}: {first_problem(error)}") from error
    except (OSError, UnicodeError) as error:  # `Europe` alone is a folder of time zones, not one
        raise InvalidInput(f"{place}: timezone: unknown time zone; use a name such as Europe/Berlin") from error


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice: of two channels or settings of one name, YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """See SafeLoader."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = str(getattr(error, "problem", None) or error)
    return f"line {mark.line + 1}: {problem}" if mark else problem


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, in words: `facts.0: should have at most 500 characters`."""
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
