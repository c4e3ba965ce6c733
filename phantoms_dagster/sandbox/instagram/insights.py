"""The metrics of a reel in the Instagram stand-in: an S-shaped curve determined by the sandbox's seed and the reel's id.

The names of the metrics are from the insights reference of the Graph API.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from phantoms_dagster.sandbox.growth import risen

REEL_METRICS = (
    "views",
    "reach",
    "likes",
    "comments",
    "shares",
    "saved",
    "reposts",
    "total_interactions",
    "total_views",
    "total_likes",
    "total_comments",
    "ig_reels_avg_watch_time",
    "ig_reels_video_view_total_time",
    "reels_skip_rate",
)
# Metrics that exist only for a reel that was also shared to Facebook.
OTHER_METRICS = (
    "crossposted_views",
    "facebook_views",
    "follows",
    "link_clicks",
    "navigation",
    "profile_activity",
    "profile_visits",
    "replies",
)


@dataclass(frozen=True)
class Reel:
    """One reel's growth: its plateau of views, its age at half of them (`half`, in seconds), and the other metrics' shares."""

    plateau: float
    half: float
    reach: float
    likes: float
    comments: float
    shares: float
    saved: float
    reposts: float
    watch_ms: int
    skip_rate: float


def reel(seed: int, media_id: str, hours: float) -> Reel:
    """The growth of a reel. `hours` is the usual age at half of the plateau."""
    rng = random.Random(f"instagram:{seed}:{media_id}")
    return Reel(
        plateau=math.exp(rng.gauss(8.0, 1.1)),
        half=hours * 3600 * rng.uniform(0.6, 1.6),
        reach=rng.uniform(0.68, 0.9),
        likes=rng.uniform(0.02, 0.09),
        comments=rng.uniform(0.001, 0.006),
        shares=rng.uniform(0.002, 0.02),
        saved=rng.uniform(0.003, 0.02),
        reposts=rng.uniform(0.0005, 0.004),
        watch_ms=rng.randint(3_500, 14_000),
        skip_rate=round(rng.uniform(22.0, 58.0), 2),
    )


def value(fate: Reel, metric: str, age: float) -> float:
    """One metric of a reel that was published `age` seconds ago. Counts never fall with age."""
    views: float = math.floor(fate.plateau * risen(age, fate.half))
    parts: dict[str, float] = {
        name: math.floor(views * getattr(fate, name)) for name in ("reach", "likes", "comments", "shares", "saved", "reposts")
    }
    if metric in parts:
        return parts[metric]
    if metric in ("views", "total_views"):
        return views
    if metric.startswith("total_") and metric != "total_interactions":
        return parts[metric.removeprefix("total_")]
    if metric == "total_interactions":
        return sum(parts[name] for name in ("likes", "comments", "shares", "saved", "reposts"))
    if metric == "ig_reels_video_view_total_time":
        return views * fate.watch_ms
    return fate.skip_rate if metric == "reels_skip_rate" else fate.watch_ms
