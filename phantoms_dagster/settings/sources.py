"""The sources of settings: environment variables, files with secrets, and variables under their old names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_origin

from pydantic_settings import BaseSettings, EnvSettingsSource

from phantoms_dagster.settings.leaves import PREFIX, Leaf, Unreadable, leaves, put

SECRET_BYTES = 65_536
# The old names of settings. An old variable still works while the new one is not set. A warning names the new one.
RENAMED = {"fuse_videos": "chain_videos", "gather_seconds": "batch_wait_seconds", "patience_seconds": "max_wait_seconds"}


class Variables(EnvSettingsSource):
    """Reads one variable for each setting. Invalid JSON fails in the validation, together with all other wrong settings."""

    def __init__(self, settings_cls: type[BaseSettings], given: Mapping[str, str | None] | None = None) -> None:
        """`given`: the variables by name, in lower case. Default: those of the environment."""
        super().__init__(settings_cls)
        if given is not None:
            self.env_vars = given

    def __call__(self) -> dict[str, Any]:
        """Return the values by group."""
        found: dict[str, Any] = {}
        for leaf in leaves(self.settings_cls).values():
            value = self.value_of(leaf)
            if value is not None:
                put(found, leaf.path, value)
        return found

    def value_of(self, leaf: Leaf) -> Any:
        """Return the value of that setting, or None if this source has none."""
        value = self.env_vars.get(leaf.variable.lower())
        if value is None:
            return None
        try:
            return self.prepare_field_value(leaf.name, leaf.field, value, self.field_is_complex(leaf.field))
        except ValueError:
            return Unreadable("is no JSON")


class OldNames(Variables):
    """Reads variables under their old names (`RENAMED`)."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        """See the base class."""
        super().__init__(settings_cls)
        prefix = PREFIX.lower()
        self.env_vars = {f"{prefix}{new}": self.env_vars.get(f"{prefix}{old}") for old, new in RENAMED.items()}


class SecretFiles(Variables):
    """Reads a secret from the file that `<VARIABLE>_FILE` names, as container images do. An empty file counts as unset.

    Messages never repeat the file name. It may be the secret itself, in the wrong variable.
    """

    def value_of(self, leaf: Leaf) -> Any:
        """See the base class."""
        path = os.environ.get(leaf.file_variable) if leaf.file_variable else None
        if not path:
            return None
        return _secret_in(path, f"{leaf.file_variable}", one_line=get_origin(leaf.field.annotation) is not list) or None


def old_names(environment: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the variables with old names, each with its new name."""
    for variable in sorted(environment):
        new = RENAMED.get(variable.upper().removeprefix(PREFIX).lower())
        if new is not None and variable.upper().startswith(PREFIX):
            yield variable, f"{PREFIX}{new.upper()}"


def _secret_in(path: str, variable: str, *, one_line: bool) -> str | Unreadable:
    file = f"the file that {variable} names"
    try:
        with Path(path).expanduser().open("rb") as opened:
            content = opened.read(SECRET_BYTES + 1)
        text = content.decode("utf-8-sig").rstrip("\r\n")
    except OSError as error:
        who = "; the user that Phantoms runs as must be able to read it" if isinstance(error, PermissionError) else ""
        return Unreadable(f"{file} cannot be read: {error.strerror}{who}")
    except UnicodeDecodeError:
        return Unreadable(f"{file} is not text in UTF-8")
    if len(content) > SECRET_BYTES:
        return Unreadable(f"{file} is larger than {SECRET_BYTES} bytes")
    if one_line and len(text.splitlines()) > 1:
        return Unreadable(f"{file} has more than one line")
    return text
