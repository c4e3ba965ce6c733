"""Resources: how assets and sensors get the real objects. `wiring` makes those objects."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from pydantic import Field

from phantoms_dagster import settings as settings_module
from phantoms_dagster.wiring import Services

_kept: Services | None = None


class ServicesResource(dg.ConfigurableResource[Services]):
    """The database, the queues, the media folder and the clients of all integrations, configured by `PHANTOMS_` variables. Each run
    creates its own and closes them at its end. All sensors and schedules of a process share one set.
    """

    # Dagster's page shows the docstring as Markdown. There, an indented second paragraph would look like code.

    # An evaluation listens on one connection and looks with another. It keeps listening after the daemon that asked for it was
    # killed. The new daemon's evaluations must not wait for a connection until the old ones have ended.
    sensor_connections: int = Field(
        default=24,
        ge=0,
        description="How many connections to PostgreSQL the sensors of a process may open in addition to the four that they keep."
        " Runs do not use it.",
    )

    def create_resource(self, context: dg.InitResourceContext) -> Services:
        """Return a plain object that knows nothing of Dagster, so that assets and sensors can be tested without Dagster."""
        if context.run is None:
            return _for_sensors(self.sensor_connections)
        return Services.from_environment()

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Services]:
        """Close the run's own services when the run ends."""
        services = self.create_resource(context)
        try:
            yield services
        finally:
            if context.run is not None:
                services.close()


def _for_sensors(connections: int) -> Services:
    """Sensors run every second, in different threads. They share one object."""
    global _kept  # noqa: PLW0603 - Dagster creates the resource again for each evaluation
    settings = settings_module.load()
    if _kept is None or _kept.settings is not settings:
        # The one before may still be in use; its connections go with it.
        _kept = Services(settings, overflow=connections)
    return _kept
