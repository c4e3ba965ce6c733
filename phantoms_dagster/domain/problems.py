"""What is wrong with a value that a person wrote, in words for that person.

The checks themselves are the models'. Pydantic names Python's types ("Input should be a valid dictionary"): this module says the
same about the file that the person has before them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

Path = tuple[str | int, ...]

_LIST, _PAIRS, _NUMBER = "should be a list", "should be pairs of a key and a value", "should be a number"
_WHOLE, _YES_NO = "should be a whole number", "should be true or false"
# By the kinds of errors that pydantic knows; the names in braces are those of its context.
_REASONS: Mapping[str, str] = {
    "missing": "is missing",
    "extra_forbidden": "there is no such key",
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
    """A rule of a whole model is broken at one place of it. `path` leads there."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(reason)
        self.path = path


def places(error: ValidationError) -> Iterator[tuple[Path, str]]:
    """Where each problem is, and what it is."""
    for problem in error.errors(include_url=False, include_input=False):
        cause = problem.get("ctx", {}).get("error")
        place = (*problem["loc"], *(cause.path if isinstance(cause, MisplacedError) else ()))
        yield tuple(part for part in place if part != "[key]"), reason(problem)


def first_place(error: ValidationError) -> tuple[Path, str]:
    """Where the first problem is, and what it is."""
    return next(places(error))


def all_problems(error: ValidationError) -> list[str]:
    """Everything that is wrong, in words."""
    found = error.errors(include_url=False, include_input=False)
    return [": ".join(part for part in (".".join(map(str, one["loc"])), reason(one)) if part) for one in found]


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, in words: `facts.0: should have at most 500 characters`."""
    path, why = first_place(error)
    where = ".".join(str(part) for part in path)
    return f"{where}: {why}" if where else why


def reason(problem: Any) -> str:
    """What is wrong, of one of pydantic's `errors()`."""
    said = _REASONS.get(problem["type"])
    return str(problem["msg"]).removeprefix("Value error, ") if said is None else said.format_map(problem.get("ctx", {}))
