"""The composition root: from settings to real objects, made when they are first needed. No decisions are made here."""

from typing import TYPE_CHECKING, Any

from phantoms_dagster.wiring.endpoints import INTEGRATIONS

if TYPE_CHECKING:
    from phantoms_dagster.wiring.services import Services

__all__ = ["INTEGRATIONS", "Services"]


def __getattr__(name: str) -> Any:
    # With the services comes the database's library, which the sandbox and the supervisor's children do without.
    if name == "Services":
        from phantoms_dagster.wiring.services import Services  # noqa: PLC0415

        return Services
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
