"""`<platform>/post`: the published video."""

from phantoms_dagster.defs.assets.stage_asset import stage_asset
from phantoms_dagster.domain.models import Platform

posts = [
    stage_asset(
        f"{platform}/post",
        description=f"The video published on {platform.title}, exactly once: every step is in the ledger before the next request.",
        kinds={str(platform)},
    )
    for platform in Platform
]
