"""`script`: the words of a video."""

from phantoms_dagster.defs.assets.stage_asset import stage_asset

script = stage_asset(
    "script",
    description="Hook, scenes, title, caption and hashtags, written by a language model from the brief in the channel's voice.",
    kinds={"openai", "json"},
    regenerates=True,
)
