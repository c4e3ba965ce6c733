"""What sensors, schedules, checks and ops say while PostgreSQL is away or its tables do not fit: one line, and no traceback.

Which errors mean that is decided in `store.away`. How a stage's step ends then belongs in `stage_step`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import dagster as dg

from phantoms_dagster.domain.errors import StoreAway
from phantoms_dagster.store.away import store_errors
from phantoms_dagster.store.fitting import check_now_and_then
from phantoms_dagster.wiring import Services

Function = TypeVar("Function", bound=Callable[..., Any])


def skips_while_the_store_is_away(look: Function) -> Function:
    """For the function of a sensor or a schedule, below Dagster's decorator: its next evaluation looks again."""

    @functools.wraps(look)
    def looking(*arguments: Any, **named: Any) -> Any:
        try:
            with store_errors():
                _check_schema(named)
                return look(*arguments, **named)
        except StoreAway as error:
            return dg.SkipReason(str(error))

    @functools.wraps(look)
    def requesting(*arguments: Any, **named: Any) -> Iterator[Any]:
        try:
            with store_errors():
                _check_schema(named)
                yield from look(*arguments, **named)
        except StoreAway as error:
            yield dg.SkipReason(str(error))

    return requesting if inspect.isgeneratorfunction(look) else looking  # type: ignore[return-value]


def fails_plainly_while_the_store_is_away(work: Function) -> Function:
    """For the function of an op, an asset or a check, below Dagster's decorator: the step fails, and Dagster may repeat it."""

    @functools.wraps(work)
    def working(*arguments: Any, **named: Any) -> Any:
        try:
            with store_errors():
                _check_schema(named)
                return work(*arguments, **named)
        except StoreAway as error:
            raise dg.Failure(str(error), allow_retries=True) from None

    @functools.wraps(work)
    def yielding(*arguments: Any, **named: Any) -> Iterator[Any]:
        try:
            with store_errors():
                _check_schema(named)
                yield from work(*arguments, **named)
        except StoreAway as error:
            raise dg.Failure(str(error), allow_retries=True) from None

    return yielding if inspect.isgeneratorfunction(work) else working  # type: ignore[return-value]


def _check_schema(named: Mapping[str, Any]) -> None:
    """Raises SchemaMismatch for functions that get the services: its tables must be those that this code knows.

    Raises StoreAway when there is no database at all, as for `dagster dev` in a fresh checkout.
    """
    services = named.get("services")
    if isinstance(services, Services):
        if services.settings.database_url is None:
            raise StoreAway("PHANTOMS_DATABASE_URL is not set, and no `phantoms up` runs here")
        check_now_and_then(services.engine)
        services.clock.agree_now_and_then(services.engine)
