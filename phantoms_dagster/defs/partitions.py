"""Partition definitions. `store.catalogue` makes the keys."""

import dagster as dg

VIDEOS = "videos"

videos = dg.DynamicPartitionsDefinition(name=VIDEOS)
