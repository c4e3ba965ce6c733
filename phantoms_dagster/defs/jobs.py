"""Jobs: one per stage and per chain of stages, which the sensors request, and one for the analytics."""

import dagster as dg

from phantoms_dagster.defs.tags import CHAIN, STAGE
from phantoms_dagster.domain.stages import CHAINS, STAGES

stage_jobs = {
    stage.name: dg.define_asset_job(
        f"{stage.slug}_job",
        # The step evaluates its checks itself. As separate steps they would take time in every run and be skipped when it fails.
        selection=dg.AssetSelection.assets(dg.AssetKey(stage.slug)).without_checks(),
        tags={STAGE: stage.name},
        description=f"Runs {stage.name} over a range of videos.",
    )
    for stage in STAGES.values()
}

chain_jobs = {
    chain.name: dg.define_asset_job(
        f"{chain.name}_job",
        selection=dg.AssetSelection.assets(*(dg.AssetKey(stage.slug) for stage in chain.joined)).without_checks(),
        tags={CHAIN: chain.name},
        description=f"Runs {chain.stages[0].name} to {chain.joined[-1].name} over a few videos, one stage after the other.",
    )
    for chain in CHAINS.values()
}

analytics_job = dg.define_asset_job(
    "analytics_job",
    selection=dg.AssetSelection.groups("analytics"),
    tags={STAGE: "analytics"},
    description="Reads results from the platforms and recomputes the performance tables.",
)
