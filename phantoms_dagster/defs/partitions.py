"""Partition definitions. What a key looks like belongs to `store.catalogue`."""

import dagster as dg

VIDEOS = "videos"

videos = dg.DynamicPartitionsDefinition(name=VIDEOS)
