"""Jobs: one for each stage, which the sensor requests, and one for the results."""

import dagster as dg

from phantoms_dagster.defs.tags import STAGE
from phantoms_dagster.domain.stages import STAGES

stage_jobs = {
    stage.name: dg.define_asset_job(
        f"{stage.slug}_job",
        # Checks are reported by their own sensor: as steps of every run they would cost it time and be skipped when it fails.
        selection=dg.AssetSelection.assets(dg.AssetKey(stage.path)).without_checks(),
        tags={STAGE: stage.name},
        description=f"Runs {stage.name} over a range of videos.",
    )
    for stage in STAGES.values()
}

analytics_job = dg.define_asset_job(
    "analytics_job",
    selection=dg.AssetSelection.groups("analytics"),
    tags={STAGE: "analytics"},
    description="Reads results back and renews the performance tables.",
)
