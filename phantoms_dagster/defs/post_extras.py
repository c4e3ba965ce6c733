"""What is added to posts after their publication: the sensor that finds due tries, and the job that makes them.

A wrapper of `production.post_extras`.
"""

import dagster as dg

from phantoms_dagster.defs.away import fails_plainly_while_the_store_is_away, skips_while_the_store_is_away
from phantoms_dagster.defs.in_flight import OPEN
from phantoms_dagster.defs.interrupt import run_interruptible
from phantoms_dagster.defs.tags import STAGE
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.production import post_extras
from phantoms_dagster.store.post_extras import PostExtrasTable
from phantoms_dagster.wiring import Services

SECONDS = 60


def _sandboxed(services: Services) -> list[str]:
    """The platforms that the sandbox answers for."""
    return [str(platform) for platform in Platform if services.endpoints.sandboxed(str(platform))]


@dg.op(description="Adds caption tracks and thumbnails to posts that are public. The posts do not depend on it.")
@fails_plainly_while_the_store_is_away
def add_post_extras(context: dg.OpExecutionContext, services: dg.ResourceParam[Services]) -> None:
    """Never fails because of an extra: what is refused is in the log and in the ledger, and what waits is tried again."""

    async def work() -> post_extras.ExtrasRound:
        pipeline, done = await services.pipeline(), post_extras.ExtrasRound()
        adding = post_extras.Adding(PostExtrasTable(services.engine), pipeline.extras, pipeline.media, services.clock)
        await adding.round(done, sandboxed=_sandboxed(services))
        return done

    done = run_interruptible(work(), services.loop)
    for extra, why in done.refused:
        context.log.warning("%s: no %s on %s: %s", extra.video_key, extra.name, extra.platform.title, why)
    for extra, why in done.waiting:
        context.log.info("%s: the %s on %s must wait: %s", extra.video_key, extra.name, extra.platform.title, why)
    context.add_output_metadata({"added": len(done.added), "refused": len(done.refused), "waiting": len(done.waiting)})


@dg.job(tags={STAGE: "analytics"}, description="Adds caption tracks, thumbnails and other extras to published posts.")
def post_extras_job() -> None:
    """One op."""
    add_post_extras()


@dg.sensor(
    job_name=post_extras_job.name,
    minimum_interval_seconds=SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts post_extras_job when something must be added to a published post.",
)
@skips_while_the_store_is_away
def post_extras_sensor(context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]) -> dg.RunRequest | dg.SkipReason:
    """Request a run if an extra is due and no run is open. If none is, this costs one query."""
    if not PostExtrasTable(services.engine).due(_sandboxed(services), most=1):
        return dg.SkipReason("nothing must be added to a post")
    if context.instance.get_runs(dg.RunsFilter(job_name=post_extras_job.name, statuses=OPEN), limit=1):
        return dg.SkipReason("the last round has not ended")
    return dg.RunRequest()
