"""Decorators for sensors, schedules, checks and ops: while PostgreSQL is down or has the wrong schema, they report one line
without a traceback.

`store.away` decides which errors mean that. `stage_step` handles it for the steps of stages.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import dagster as dg

from phantoms_dagster.domain.errors import StoreAway
from phantoms_dagster.store.away import store_errors
from phantoms_dagster.store.schema_version import check_cached
from phantoms_dagster.wiring import Services

Function = TypeVar("Function", bound=Callable[..., Any])


def skips_while_the_store_is_away(look: Function) -> Function:
    """Decorate the function of a sensor or schedule, below Dagster's decorator. It skips; the next evaluation tries again."""

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
    """Decorate the function of an op, asset or check, below Dagster's decorator. The step fails, and Dagster may retry it."""

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
    """Check the database of a function that gets the services.

    Raises SchemaMismatch when the schema is not the one that this code knows, and StoreAway when there is no database, as for
    `dagster dev` in a fresh checkout.
    """
    services = named.get("services")
    if isinstance(services, Services):
        if services.settings.database.url is None:
            raise StoreAway("PHANTOMS_DATABASE_URL is not set, and no `phantoms up` runs here")
        check_cached(services.engine)
        services.clock.agree_now_and_then(services.engine)
