"""Public ids that come late: the sensor that finds due look-ups, and the job that does them. A wrapper of `production.late_ids`."""

from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg

from phantoms_dagster.defs.away import fails_plainly_while_the_store_is_away, skips_while_the_store_is_away
from phantoms_dagster.defs.in_flight import OPEN
from phantoms_dagster.defs.interrupt import run_interruptible
from phantoms_dagster.defs.tags import STAGE
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.production import late_ids
from phantoms_dagster.store.late_ids import LateIdTable
from phantoms_dagster.wiring import Services

SECONDS = 120
_TITLES = " and ".join(platform.title for platform in Platform if platform.spec.late_ids is not None)


@dataclass(frozen=True)
class _Lookups:
    """The look-ups of one platform, or of its gateway. `sandbox`: the sandbox answers for it."""

    table: LateIdTable
    sandbox: bool
    by_gateway: bool = False


def _lookups(services: Services) -> Iterator[_Lookups]:
    """Yield those of each platform with late ids, and of its gateway."""
    engine, endpoints = services.engine, services.endpoints
    for platform in Platform:
        if (rule := platform.spec.late_ids) is None:
            continue
        yield _Lookups(LateIdTable(engine, platform, rule), endpoints.sandboxed(str(platform)))
        if (gateway := platform.spec.gateway) is not None:
            yield _Lookups(LateIdTable(engine, platform, rule, gateway=True), endpoints.sandboxed(gateway), by_gateway=True)


@dg.op(description=f"Asks {_TITLES} for the public ids of posts that were published before they had one.")
@fails_plainly_while_the_store_is_away
def ask_for_late_ids(context: dg.OpExecutionContext, services: dg.ResourceParam[Services]) -> None:
    """Fails when an account could not be asked, after all others were."""

    async def work() -> late_ids.LookupRound:
        pipeline, done = await services.pipeline(), late_ids.LookupRound()
        for lookups in _lookups(services):
            finders = pipeline.reads_of(by_gateway=lookups.by_gateway).late_ids
            await late_ids.find_late_ids(lookups.table, finders, services.clock, done, sandbox=lookups.sandbox)
        return done

    done = run_interruptible(work(), services.loop)
    for post in done.given_up:
        context.log.warning(
            "%s: %s gave its post on %s no public id within a week", post.video_key, post.platform.title, post.account
        )
    context.add_output_metadata({"found": len(done.found), "still_waiting": done.waiting, "given_up": len(done.given_up)})
    if done.failures:
        reasons = "\n".join(f"{account}: {reason}" for account, reason in done.failures.items())
        raise dg.Failure(f"{len(done.found)} public ids found; some accounts could not be asked\n{reasons}", allow_retries=False)


@dg.job(tags={STAGE: "analytics"}, description="Finds the public ids of posts that a platform named only after it published them.")
def late_ids_job() -> None:
    """One op."""
    ask_for_late_ids()


@dg.sensor(
    job_name=late_ids_job.name,
    minimum_interval_seconds=SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts late_ids_job when the look-up of a post's public id is due.",
)
@skips_while_the_store_is_away
def late_ids_sensor(context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]) -> dg.RunRequest | dg.SkipReason:
    """Request a run if a post needs its public id and no run is open. If none does, this costs one query for each platform."""
    if not any(lookups.table.due(sandbox=lookups.sandbox, most=1) for lookups in _lookups(services)):
        return dg.SkipReason("no look-up of a public id is due")
    if context.instance.get_runs(dg.RunsFilter(job_name=late_ids_job.name, statuses=OPEN), limit=1):
        return dg.SkipReason("the last round has not ended")
    return dg.RunRequest()
