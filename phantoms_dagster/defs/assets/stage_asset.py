"""The factory that all stages' assets come from: what they have in common is said once."""

from collections.abc import Iterator

import dagster as dg

from phantoms_dagster.defs.checks import ChecksLeft
from phantoms_dagster.defs.checks import specs as checks_of
from phantoms_dagster.defs.partitions import videos
from phantoms_dagster.defs.stage_step import Ended, run_stage
from phantoms_dagster.defs.tags import STAGE
from phantoms_dagster.domain.stages import STAGES, Stage
from phantoms_dagster.wiring import Services

GROUP = "production"
OWNERS = ["team:content"]
# Most partitions in one run of a backfill; a run holds one process however many videos it carries.
BACKFILL_BATCH = 50


class StageConfig(dg.Config):
    """Run config of a stage."""

    regenerate: bool = False
    """Make it again as a new revision, although it is done; that voids a later approval and unpublished variants."""


def spec(stage: Stage) -> dg.AssetSpec:
    """The asset spec of a stage."""
    return dg.AssetSpec(
        dg.AssetKey(stage.slug),
        deps=[dg.AssetKey(STAGES[earlier].slug) for earlier in stage.after],
        description=stage.description,
        partitions_def=videos,
        skippable=True,
        group_name=GROUP,
        owners=OWNERS,
        kinds=set(stage.tools),
        tags={STAGE: stage.slug},
    )


def stage_asset(stage: Stage) -> dg.AssetsDefinition:
    """The asset of a stage. Approval has one of its own, since its run config is a decision."""

    def body(
        context: dg.AssetExecutionContext, services: Services, checks: ChecksLeft, *, regenerate: bool = False
    ) -> Iterator[Ended]:
        yield from run_stage(context, services, checks, stage, regenerate=regenerate)

    decorate = dg.multi_asset(
        name=stage.slug,
        specs=[spec(stage)],
        check_specs=checks_of(stage),
        can_subset=True,  # without its checks, or they without it
        pool=stage.pool,
        backfill_policy=dg.BackfillPolicy.multi_run(BACKFILL_BATCH),
    )
    if stage.regenerates:

        @decorate
        def with_config(
            context: dg.AssetExecutionContext,
            config: StageConfig,
            services: dg.ResourceParam[Services],
            checks_left: dg.ResourceParam[ChecksLeft],
        ) -> Iterator[Ended]:
            yield from body(context, services, checks_left, regenerate=config.regenerate)

        return with_config

    @decorate
    def without_config(
        context: dg.AssetExecutionContext, services: dg.ResourceParam[Services], checks_left: dg.ResourceParam[ChecksLeft]
    ) -> Iterator[Ended]:
        yield from body(context, services, checks_left)

    return without_config
