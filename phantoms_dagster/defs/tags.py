"""The tags our runs carry, and why. Imports nothing, so that everybody may import it."""

# Which stage a run works on: the planner finds open runs by it, queues and limits are set by it.
STAGE = "phantoms/stage"
# Which chain of stages a run works on, instead of one stage: the same is done with it.
CHAIN = "phantoms/chain"
# For people: the video of a run, or how many videos it carries. Dagster shows tags by their alphabet: these come before its own.
VIDEO = "content/video"
VIDEOS = "content/videos"
# Set by the sensor alone: in such a run a deferred video is nobody's failure.
PLANNED = "phantoms/planned"
# Dagster's own: a contiguous range of partitions, and the order in the run queue.
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
PARTITION = "dagster/partition"
BACKFILL = "dagster/backfill"
PRIORITY = "dagster/priority"
# Of a sensor: it may be asked again so many seconds after it was asked last. Dagster's own intervals are whole seconds.
INTERVAL = "phantoms/interval_seconds"
