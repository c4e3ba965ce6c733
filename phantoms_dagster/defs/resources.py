"""Resources: how assets and sensors get at the real objects. What those are belongs to `wiring`."""

from collections.abc import Iterator

import dagster as dg

from phantoms_dagster import settings as settings_module
from phantoms_dagster.wiring import Workshop

# An evaluation that listens keeps a connection, and looks with another. It goes on listening when the daemon that asked for it was
# killed: the new daemon's evaluations must not wait for a connection until those of the old ones have ended.
OVERFLOW = 24

_kept: Workshop | None = None


@dg.resource(description="The workshop of this process, made from the environment when it is first needed.")
def workshop_resource(context: dg.InitResourceContext) -> Iterator[Workshop]:
    """A plain object: nothing of Dagster in it. Sensors share one: they look every second, and from different threads."""
    if context.run is None:
        yield _for_sensors()
        return
    workshop = Workshop.from_environment()
    try:
        yield workshop
    finally:
        workshop.close()


def _for_sensors() -> Workshop:
    global _kept  # noqa: PLW0603 - Dagster makes a resource anew for each evaluation
    settings = settings_module.load()
    if _kept is None or _kept.settings is not settings:
        # The one before may still be in use; its connections go with it.
        _kept = Workshop(settings, overflow=OVERFLOW)
    return _kept
