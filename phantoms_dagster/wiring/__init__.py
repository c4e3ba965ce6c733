"""The composition root: from settings to real objects, made when they are first needed. No decisions are made here."""

from typing import TYPE_CHECKING, Any

from phantoms_dagster.wiring.endpoints import INTEGRATIONS

if TYPE_CHECKING:
    from phantoms_dagster.wiring.workshop import Workshop

__all__ = ["INTEGRATIONS", "Workshop"]


def __getattr__(name: str) -> Any:
    # With the workshop comes the database's library, which the sandbox and the supervisor's children do without.
    if name == "Workshop":
        from phantoms_dagster.wiring.workshop import Workshop  # noqa: PLC0415

        return Workshop
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
