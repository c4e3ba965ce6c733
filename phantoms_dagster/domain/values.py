"""The base class of all values, and the JSON types that they share."""

from __future__ import annotations

from typing import TypeAlias

from pydantic import BaseModel, ConfigDict, JsonValue

__all__ = ["JsonObject", "JsonValue", "Value"]

JsonObject: TypeAlias = dict[str, JsonValue]


class Value(BaseModel):
    """An immutable value. Unknown fields are refused, so that a typo in a file or a row is noticed at once.

    The text of an error does not repeat the input, which may be a secret.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
