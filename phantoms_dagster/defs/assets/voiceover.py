"""`voiceover`: the spoken script."""

from phantoms_dagster.defs.assets.stage_asset import stage_asset

voiceover = stage_asset(
    "voiceover",
    description="The script spoken by a neural voice, with the exact time of each sentence.",
    kinds={"python", "audio"},
    regenerates=True,
)
