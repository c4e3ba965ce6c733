"""The tags of our runs, and their purpose. Imports nothing, so that every module can import it."""

# The stage that a run works on. The planner finds open runs by it; queues and limits depend on it.
STAGE = "phantoms/stage"
# The chain of stages that a run works on, instead of a single stage. Used in the same way.
CHAIN = "phantoms/chain"
# For people: the video of a run, or the number of its videos. Dagster sorts tags alphabetically, so these come before its own.
VIDEO = "content/video"
VIDEOS = "content/videos"
# Only the sensors set it. In such a run a deferred video is not a failure.
PLANNED = "phantoms/planned"
# Dagster's own: a contiguous range of partitions, and the order in the run queue.
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
PARTITION = "dagster/partition"
BACKFILL = "dagster/backfill"
PRIORITY = "dagster/priority"
# A sensor's minimum interval in seconds. Dagster's own intervals are whole seconds.
INTERVAL = "phantoms/interval_seconds"
