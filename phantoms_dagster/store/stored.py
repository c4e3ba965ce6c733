"""Parses the JSON in the tables. JSON that does not fit its model affects one video, with an error that has the next step."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Brief, Channel, PostWords, StageOutput
from phantoms_dagster.domain.problems import first_problem

# Models parse JSON text themselves. That is twice as fast as reading the objects that the driver would make.
OUTPUT: TypeAdapter[StageOutput] = TypeAdapter(StageOutput)
WORDS: TypeAdapter[tuple[PostWords, ...]] = TypeAdapter(tuple[PostWords, ...])
OUTPUTS: TypeAdapter[dict[str, StageOutput]] = TypeAdapter(dict[str, StageOutput])


class UnreadableRow(InvalidInput):
    """Stored data of one video no longer fits its model."""


def brief_of(key: str, stored: str | Mapping[str, Any]) -> Brief:
    """The brief of a video, from JSON as text or as objects. Raises Unreadable."""
    try:
        return Brief.model_validate_json(stored) if isinstance(stored, str) else Brief.model_validate(stored)
    except ValidationError as error:
        raise UnreadableRow(
            f"the stored brief of {key} cannot be read: {first_problem(error)}; correct it with `phantoms edit {key}`, then "
            f"`phantoms retry {key}`; what that cannot change needs a new brief (`phantoms add`)"
        ) from None


def channel_of(key: str, stored: str | Mapping[str, Any]) -> Channel:
    """The channel of a video, from JSON as text or as objects. Raises Unreadable."""
    try:
        return _channel(stored) if isinstance(stored, str) else Channel.model_validate(stored)
    except ValidationError as error:
        raise UnreadableRow(
            f"the stored configuration of the channel of {key} cannot be read: {first_problem(error)}; correct channels.yaml until "
            f"`phantoms doctor` accepts it, then `phantoms retry {key}`, which reads it again"
        ) from None


def output_of(key: str, stage: str, stored: str | Mapping[str, Any] | None) -> StageOutput:
    """What a stage made, from JSON as text or as objects. Raises Unreadable."""
    try:
        return OUTPUT.validate_json(stored) if isinstance(stored, str) else OUTPUT.validate_python(stored)
    except ValidationError as error:
        raise _output_problem(key, stage, error) from None


def outputs_of(key: str, stored: str | None) -> dict[str, StageOutput]:
    """What stages made, by stage, from JSON as text. Raises Unreadable."""
    try:
        return OUTPUTS.validate_json(stored or "{}")
    except ValidationError as error:
        raise _output_problem(key, str(error.errors(include_url=False, include_input=False)[0]["loc"][0]), error) from None


def words_of(key: str, stored: object) -> tuple[PostWords, ...]:
    """The words that were approved, from objects. Raises Unreadable."""
    try:
        return WORDS.validate_python(stored or ())
    except ValidationError as error:
        raise UnreadableRow(
            f"the words of {key} that were decided on cannot be read: {first_problem(error)}; decide again with "
            f"`phantoms approve {key}`, then `phantoms retry {key}`"
        ) from None


@lru_cache(maxsize=256)
def _channel(config: str) -> Channel:
    # Frozen, and the same for many videos.
    return Channel.model_validate_json(config)


def _output_problem(key: str, stage: str, error: ValidationError) -> UnreadableRow:
    step = f"see `phantoms show {key}`" if stage.endswith("/post") else f"make it again with `phantoms retry {key} --from {stage}`"
    return UnreadableRow(f"what {stage} made of {key} cannot be read: {first_problem(error)}; {step}")
