"""Resources: how assets and sensors get at the real objects. What those are belongs to `wiring`."""

from collections.abc import Iterator

import dagster as dg

from phantoms_dagster.wiring import Workshop


@dg.resource(description="The workshop of this process, made from the environment when it is first needed.")
def workshop_resource(_: dg.InitResourceContext) -> Iterator[Workshop]:
    """A plain object: nothing of Dagster in it."""
    workshop = Workshop.from_environment()
    try:
        yield workshop
    finally:
        workshop.close()
