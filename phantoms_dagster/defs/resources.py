"""Resources: how assets and sensors get at the real objects. What those are belongs to `wiring`."""

from collections.abc import Iterator

import dagster as dg

from phantoms_dagster import settings as settings_module
from phantoms_dagster.wiring import Services

# An evaluation that listens keeps a connection, and looks with another. It goes on listening when the daemon that asked for it was
# killed: the new daemon's evaluations must not wait for a connection until those of the old ones have ended.
OVERFLOW = 24

_kept: Services | None = None


@dg.resource(description="The services of this process, made from the environment when it is first needed.")
def services_resource(context: dg.InitResourceContext) -> Iterator[Services]:
    """A plain object: nothing of Dagster in it. Sensors share one: they look every second, and from different threads."""
    if context.run is None:
        yield _for_sensors()
        return
    services = Services.from_environment()
    try:
        yield services
    finally:
        services.close()


def _for_sensors() -> Services:
    global _kept  # noqa: PLW0603 - Dagster makes a resource anew for each evaluation
    settings = settings_module.load()
    if _kept is None or _kept.settings is not settings:
        # The one before may still be in use; its connections go with it.
        _kept = Services(settings, overflow=OVERFLOW)
    return _kept
