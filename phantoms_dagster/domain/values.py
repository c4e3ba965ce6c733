"""The base of every value and the few scalar types shared by all of them. No behaviour of videos lives here."""

from __future__ import annotations

from typing import TypeAlias

from pydantic import BaseModel, ConfigDict, JsonValue

__all__ = ["JsonObject", "JsonValue", "Value"]

JsonObject: TypeAlias = dict[str, JsonValue]


class Value(BaseModel):
    """An immutable value. Unknown fields are refused, so that a typo in a file or a row is seen at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")
