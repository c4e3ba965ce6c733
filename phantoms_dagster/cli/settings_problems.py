"""Formats errors in the settings: all at once, each with its variable, the given value and the expected form."""

from __future__ import annotations

import os
import re
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.problems import reason
from phantoms_dagster.settings import Settings
from phantoms_dagster.settings.leaves import Leaf, leaves

LONGEST_SHOWN = 60
# A number, a word, JSON, or a URL without a password. Anything else may be a key or a password in the wrong variable.
_HARMLESS = re.compile(r"[-+.,\d]{1,20}|[A-Za-z_ -]{1,20}|[{\[][^@]*|[a-z0-9]{1,8}:/{0,2}[^@\s]*")
_EXAMPLE = re.compile(r"as JSON: (\{.*\})")
_NO_FORM = ("value_error", "missing")


def settings_problem(error: ValidationError) -> str:
    """Return the message. It never shows a secret, nor a value that looks like one."""
    found = [_problem(one) for one in error.errors(include_url=False)]
    if len(found) == 1:
        return found[0]
    return "\n  ".join([f"{counted(len(found), 'setting is', 'settings are')} invalid:", *found])


def _problem(one: Any) -> str:
    leaf = next(leaf for leaf in leaves(Settings).values() if leaf.path == one["loc"][: len(leaf.path)])
    inner = ".".join(str(part) for part in one["loc"][len(leaf.path) :])
    form, example = _form(leaf.field), _EXAMPLE.search(leaf.description)
    why = reason(one)
    if inner:
        why = f"{inner} {why}"
    elif form and one["type"] not in _NO_FORM:
        why = f"should be {form}"
    if example:
        why = f"{why}; write it as JSON, like {example[1]}"
    return f"{leaf.variable}{_given(leaf, one['input'])}: {why}"


def _given(leaf: Leaf, value: Any) -> str:
    """Return the given value for display. Stars replace a secret, or what looks like one."""
    text = next((text for key, text in os.environ.items() if key.upper() == leaf.variable), None)
    if text is None:
        if not isinstance(value, str | int | float):
            return ""  # it came from a file; the error itself names the file
        text = str(value)
    if leaf.secret or not _HARMLESS.fullmatch(text):
        return "=********"
    return f"={text}" if len(text) <= LONGEST_SHOWN and text.isprintable() else f" (given: {len(text)} characters)"


def _form(field: FieldInfo) -> str:
    """Describe the form of a valid value; empty when the type does not tell."""
    kind = field.annotation
    if get_origin(kind) is Literal:
        *others, last = map(str, get_args(kind))
        return f"{', '.join(others)} or {last}"
    noun = {int: "a whole number", float: "a number"}.get(kind) if isinstance(kind, type) else None
    if noun is None:
        return ""
    bounds = {name: getattr(part, name) for part in field.metadata for name in ("ge", "gt", "le", "lt") if hasattr(part, name)}
    if "ge" in bounds and "le" in bounds:
        return f"{noun} from {bounds['ge']} to {bounds['le']}"
    words = {"ge": "{} or more", "gt": "more than {}", "le": "at most {}", "lt": "less than {}"}
    return " and ".join([noun, *(words[name].format(value) for name, value in bounds.items())]).replace(" and ", ", ", 1)
