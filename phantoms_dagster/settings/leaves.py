"""Groups of settings, and the one environment variable of each setting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, SecretStr, field_validator
from pydantic.fields import FieldInfo

PREFIX = "PHANTOMS_"


@dataclass(frozen=True)
class Variable:
    """Marks a setting's type with its environment variable, where the name does not follow from the group."""

    name: str


@dataclass(frozen=True)
class Unreadable:
    """A value that could not be read, such as a secret in a missing file. Its validation fails with the reason.

    In this way it is reported together with all other wrong settings.
    """

    reason: str


class Group(BaseModel):
    """A group of settings. A setting's variable is `variables` plus the setting's name, unless its type has a `Variable`.

    docs/settings.md shows the first line of the docstring below the group's heading. Secrets are `SecretStr`: they print as stars.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)
    variables: ClassVar[str]

    @field_validator("*", mode="before")
    @classmethod
    def _readable(cls, value: Any) -> Any:
        if isinstance(value, Unreadable):
            raise ValueError(value.reason)
        return value


@dataclass(frozen=True)
class Leaf:
    """One setting: its path (`("database", "url")`), its variable and its field."""

    path: tuple[str, ...]
    variable: str
    field: FieldInfo

    @property
    def name(self) -> str:
        """The variable's name in lower case, without the prefix. It is unique."""
        return self.variable.removeprefix(PREFIX).lower()

    @property
    def description(self) -> str:
        """What the setting means."""
        return self.field.description or ""

    @property
    def secret(self) -> bool:
        """Whether this is a secret or a list of secrets."""
        return is_secret(self.field.annotation)

    @property
    def file_variable(self) -> str | None:
        """The variable that names a file with the secret. None if this is not a secret."""
        return f"{self.variable}_FILE" if self.secret else None

    def value(self, settings: BaseModel) -> Any:
        """Return its value."""
        found: Any = settings
        for name in self.path:
            found = getattr(found, name)
        return found


def is_secret(annotation: Any) -> bool:
    """Whether a setting of that type is a secret or a list of secrets."""
    return annotation is SecretStr or any(is_secret(part) for part in get_args(annotation))


def groups(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], type[Group]]]:
    """Yield all groups, nested ones too, in the order of docs/settings.md."""
    for name, field in model.model_fields.items():
        if (inner := _group(field)) is not None:
            yield (*path, name), inner
            yield from groups(inner, (*path, name))


@cache
def leaves(model: type[BaseModel]) -> Mapping[str, Leaf]:
    """Return all settings by `Leaf.name`, in the order of docs/settings.md."""
    found = [leaf for path, group in groups(model) for leaf in leaves_of(group, path)]
    return {leaf.name: leaf for leaf in found}


def leaves_of(group: type[Group], path: tuple[str, ...]) -> Iterator[Leaf]:
    """Yield the settings of one group, without those of nested groups."""
    for name, field in group.model_fields.items():
        if _group(field) is None:
            given = next((part.name for part in field.metadata if isinstance(part, Variable)), None)
            yield Leaf((*path, name), given or f"{group.variables}{name.upper()}", field)


def _group(field: FieldInfo) -> type[Group] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Group) else None


def put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set the value at `path` in nested dictionaries."""
    *outer, last = path
    for name in outer:
        values = values.setdefault(name, {})
    values[last] = value
