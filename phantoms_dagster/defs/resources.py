"""Resources: how assets and sensors get the real objects. `wiring` makes those objects."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from pydantic import Field

from phantoms_dagster import settings as settings_module
from phantoms_dagster.wiring import Services

_kept: Services | None = None


class ServicesResource(dg.ConfigurableResource[Services]):
    """The database, the queues, the media folder and the clients of all integrations, as the `PHANTOMS_` variables set them. A run
    makes its own and closes them when it ends. All sensors and schedules of a process share one set.
    """

    # The page shows the docstring as Markdown. A second paragraph would be indented there, and so be taken for code.

    # An evaluation listens on one connection and looks with another. It goes on listening when the daemon that asked for it was
    # killed: the new daemon's evaluations must not wait for a connection until the old ones have ended.
    sensor_connections: int = Field(
        default=24,
        ge=0,
        description="How many connections to PostgreSQL the sensors of a process may open beside the four that they keep."
        " Runs do not use it.",
    )

    def create_resource(self, context: dg.InitResourceContext) -> Services:
        """A plain object, without anything of Dagster, so that assets and sensors can be tried without Dagster."""
        if context.run is None:
            return _for_sensors(self.sensor_connections)
        return Services.from_environment()

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Services]:
        """Close what belongs to a run when the run ends."""
        services = self.create_resource(context)
        try:
            yield services
        finally:
            if context.run is not None:
                services.close()


def _for_sensors(connections: int) -> Services:
    """Sensors look every second, and from different threads: they share one object."""
    global _kept  # noqa: PLW0603 - Dagster makes the resource again for each evaluation
    settings = settings_module.load()
    if _kept is None or _kept.settings is not settings:
        # The one before may still be in use; its connections go with it.
        _kept = Services(settings, overflow=connections)
    return _kept
