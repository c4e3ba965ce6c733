"""Validation errors in words for the person who wrote the value.

The models make the checks. Pydantic's messages use Python's types ("Input should be a valid dictionary"). This module says the same
in terms of the file that the person wrote.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

Path = tuple[str | int, ...]

_LIST, _PAIRS, _NUMBER = "should be a list", "should be pairs of a key and a value", "should be a number"
_WHOLE, _YES_NO = "should be a whole number", "should be true or false"
# By pydantic's error type. The names in braces come from the error's context.
_REASONS: Mapping[str, str] = {
    "missing": "is missing",
    "extra_forbidden": "is not a known key",
    "string_type": "should be text",
    "string_too_long": "should have at most {max_length} characters",
    "string_too_short": "should have at least {min_length} characters",
    "string_pattern_mismatch": "is not written as it should be",
    "too_long": "should have at most {max_length} entries, and has {actual_length}",
    "too_short": "should have at least {min_length} entries, and has {actual_length}",
    "literal_error": "should be {expected}",
    "enum": "should be {expected}",
    "greater_than": "should be more than {gt}",
    "greater_than_equal": "should be at least {ge}",
    "less_than": "should be less than {lt}",
    "less_than_equal": "should be at most {le}",
    "int_from_float": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_type": _WHOLE,
    "bool_parsing": _YES_NO,
    "bool_type": _YES_NO,
    **dict.fromkeys(("decimal_parsing", "decimal_type", "float_parsing", "float_type", "finite_number"), _NUMBER),
    **dict.fromkeys(("tuple_type", "list_type"), _LIST),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type"), _PAIRS),
}


class MisplacedError(ValueError):
    """A model's own rule is broken. `path` leads to the field within the model."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(reason)
        self.path = path


def located_problems(error: ValidationError) -> Iterator[tuple[Path, str]]:
    """Yield the path of each problem and its description."""
    for problem in error.errors(include_url=False, include_input=False):
        cause = problem.get("ctx", {}).get("error")
        place = (*problem["loc"], *(cause.path if isinstance(cause, MisplacedError) else ()))
        yield tuple(part for part in place if part != "[key]"), reason(problem)


def first_located_problem(error: ValidationError) -> tuple[Path, str]:
    """The path of the first problem and its description."""
    return next(located_problems(error))


def all_problems(error: ValidationError) -> list[str]:
    """All problems in words, such as `facts.0: should have at most 500 characters`."""
    found = error.errors(include_url=False, include_input=False)
    return [": ".join(part for part in (".".join(map(str, one["loc"])), reason(one)) if part) for one in found]


def first_problem(error: ValidationError) -> str:
    """The first problem in words, such as `facts.0: should have at most 500 characters`."""
    path, why = first_located_problem(error)
    where = ".".join(str(part) for part in path)
    return f"{where}: {why}" if where else why


def reason(problem: Any) -> str:
    """The description of one of pydantic's `errors()`."""
    template = _REASONS.get(problem["type"])
    if template is None:
        return str(problem["msg"]).removeprefix("Value error, ")
    return template.format_map(problem.get("ctx", {}))
