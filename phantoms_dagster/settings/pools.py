"""The limits of one pool in `PHANTOMS_POOLS`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from phantoms_dagster.registry.pools import DailyQuota, PoolLimits, Rate

_RATE = "should be [calls, seconds, burst], such as [60, 60, 5], with a burst of at most the calls"
_QUOTA = 'should be [units, time zone], such as [500, "UTC"]'


def _rate(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    try:
        calls, seconds, burst = check(value)
    except ValidationError:
        raise ValueError(_RATE) from None
    if burst > calls:
        raise ValueError(_RATE)
    return calls, seconds, burst


def _quota(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    try:
        found = check([*value, "UTC"] if isinstance(value, list | tuple) and len(value) == 1 else value)
        if found is not None:
            ZoneInfo(found[1])
    except (ValidationError, KeyError, ValueError, OSError):  # which error ZoneInfo raises depends on the name
        raise ValueError(_QUOTA) from None
    return found


class PoolSetting(BaseModel):
    """The limits of one pool that the user changes. The others stay as registered."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    slots: Annotated[int, Field(ge=1)] | None = None
    rates: tuple[
        Annotated[
            tuple[Annotated[int, Field(ge=1)], Annotated[float, Field(gt=0)], Annotated[int, Field(ge=1)]], WrapValidator(_rate)
        ],
        ...,
    ] = ()
    daily: Annotated[tuple[Annotated[int, Field(ge=0)], str] | None, WrapValidator(_quota)] = None
    lease_seconds: float = Field(30.0, gt=0)
    leaves: int = Field(0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        unknown = sorted(set(value) - set(cls.model_fields)) if isinstance(value, dict) else []
        if unknown:
            raise ValueError(f"has no limit {unknown[0]!r}; there are {', '.join(cls.model_fields)}")
        return value

    def applied_to(self, limits: PoolLimits) -> PoolLimits:
        """Return `limits` with the changes."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        if "rates" in given:
            given["rates"] = tuple(Rate(*rate) for rate in self.rates)
        if self.daily is not None:
            given["daily"] = DailyQuota(*self.daily)
        return replace(limits, **given)
