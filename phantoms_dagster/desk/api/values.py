"""Types for API requests and responses. Requests are strict: lengths are bounded and unknown fields are refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Header, Path, Query
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict

from phantoms_dagster.desk.masking import masked
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.text import unfit

MOST_NUMBER = 2**63 - 1
MOST_ROWS = 200
YEARS = range(2000, 2101)
KEY = r"^[a-z0-9][a-z0-9-]{0,99}$"


class RequestModel(BaseModel):
    """Base class of request bodies."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ApiModel(BaseModel):
    """Base class of response bodies."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


def _fit(value: str) -> str:
    if (problem := unfit(value)) is not None:
        raise ValueError(problem)
    return value.strip()


def _said(value: str) -> str:
    if not value:
        raise ValueError("is empty")
    return value


def _moment(value: Any) -> datetime:
    """Parse a time with a time zone and return it in UTC. Numbers are refused: they could be seconds or milliseconds."""
    if not isinstance(value, str):
        raise ValueError("should be text such as 2026-12-24T18:00:00+01:00")
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("is not a valid time; write it like 2026-12-24T18:00:00+01:00") from None
    if found.tzinfo is None:
        raise ValueError("has no time zone; write it like 2026-12-24T18:00:00+01:00")
    if found.year not in YEARS:
        raise ValueError(f"should be between the years {YEARS[0]} and {YEARS[-1]}")
    return found.astimezone(UTC)


Words = Annotated[str, Field(max_length=2_000), AfterValidator(_fit)]
Reason = Annotated[str, Field(min_length=1, max_length=1_000), AfterValidator(_fit), AfterValidator(_said)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_fit)]
Moment = Annotated[datetime, Strict(False), BeforeValidator(_moment)]
PlatformName = Platform
VideoKey = Annotated[str, Field(pattern=KEY)]
Number = Annotated[int, Field(ge=1, le=MOST_NUMBER)]

KeyInPath = Annotated[str, Path(pattern=KEY, description="The key of a video")]
NumberInPath = Annotated[int, Path(ge=1, le=MOST_NUMBER)]
TextInQuery = Annotated[str, Query(max_length=300), AfterValidator(_fit)]
Cursor = Annotated[int | None, Query(ge=1, le=MOST_NUMBER, description="`next_cursor` of the previous page")]
Limit = Annotated[int, Query(ge=1, le=MOST_ROWS, description="Rows per page")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,200}$",
        description="For a day, the same key and body return the same response. The same key with another body is a 422.",
    ),
]

# Text and rows from a provider, with secrets masked.
Masked = Annotated[str, AfterValidator(masked)]
MaskedRow = Annotated[dict[str, Any], AfterValidator(masked)]
