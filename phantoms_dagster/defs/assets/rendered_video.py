"""`rendered_video`: the master file."""

from phantoms_dagster.defs.assets.stage_asset import stage_asset

rendered_video = stage_asset(
    "rendered_video",
    description="The master: 1080x1920, 30 fps, H.264 and AAC at -14 LUFS, made by the render API or local ffmpeg, then probed.",
    kinds={"ffmpeg", "video"},
    regenerates=True,
)
