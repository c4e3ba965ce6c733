"""The assets of all stages, in the order of the table of stages."""

from phantoms_dagster.defs.assets.approval import approval
from phantoms_dagster.defs.assets.stage_asset import stage_asset
from phantoms_dagster.domain.stages import STAGES

stage_assets = [approval if stage.kind == "approval" else stage_asset(stage) for stage in STAGES.values()]
