"""`<platform>/variant`: the approved master made to fit each platform."""

from phantoms_dagster.defs.assets.stage_asset import stage_asset
from phantoms_dagster.domain.models import Platform

variants = [
    stage_asset(
        f"{platform}/variant",
        description=f"The approved video within {platform.title}'s limits, remuxed where that is enough, "
        "and the title and caption that go with it.",
        kinds={"ffmpeg", str(platform)},
    )
    for platform in Platform
]
