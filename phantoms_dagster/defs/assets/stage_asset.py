"""The factory for the assets of stages."""

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
# The most partitions in one run of a backfill. A run is one process, however many videos it has.
BACKFILL_BATCH = 50


class StageConfig(dg.Config):
    """Run config of a stage."""

    regenerate: bool = False
    """Make it again as a new revision, although it is done. A later approval and unpublished variants become void."""


def spec(stage: Stage) -> dg.AssetSpec:
    """Return the asset spec of a stage."""
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
    """Return the asset of a stage. `approval` has its own asset, because its run config is a decision."""

    def body(
        context: dg.AssetExecutionContext, services: Services, checks: ChecksLeft, *, regenerate: bool = False
    ) -> Iterator[Ended]:
        yield from run_stage(context, services, checks, stage, regenerate=regenerate)

    decorate = dg.multi_asset(
        name=stage.slug,
        specs=[spec(stage)],
        check_specs=checks_of(stage),
        can_subset=True,  # so that the asset can run without its checks, and the checks without it
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
