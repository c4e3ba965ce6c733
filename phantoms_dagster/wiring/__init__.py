"""The composition root: creates the real objects from the settings, when they are first needed. It makes no decisions."""

from typing import TYPE_CHECKING, Any

from phantoms_dagster.wiring.endpoints import INTEGRATIONS

if TYPE_CHECKING:
    from phantoms_dagster.wiring.services import Services

__all__ = ["INTEGRATIONS", "Services"]


def __getattr__(name: str) -> Any:
    # Importing the services imports the database library, which the sandbox and the supervisor's children do not need.
    if name == "Services":
        from phantoms_dagster.wiring.services import Services  # noqa: PLC0415

        return Services
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
