"""The names, labels and help texts of the Prometheus metrics. `cli.metrics` reads the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from phantoms_dagster.resilience.breakers.breaker import BreakerState
from phantoms_dagster.store.statistics import BUCKETS, StatisticsReading
from phantoms_dagster.wiring.watching import PoolView

BREAKER_STATES = {"closed": 0, "half-open": 1, "open": 2}
PATTERN = ":*"


def exposition(metrics: Sequence[Metric], accept: str) -> tuple[bytes, str]:
    """Return the encoded metrics and their content type, in the format that the `Accept` header asks for."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given(metrics))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Given(Collector):
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Sequence[Metric]:
        return self._metrics


def up(stores: Mapping[str, bool]) -> Iterator[Metric]:
    """Yield whether each store answered this scrape."""
    family = GaugeMetricFamily("phantoms_up", "Whether the store answered this scrape.", labels=["store"])
    for store, answered in stores.items():
        family.add_metric([store], float(answered))
    yield family


def table_metrics(reading: StatisticsReading) -> Iterator[Metric]:
    """Yield the metrics read from PostgreSQL."""
    videos = GaugeMetricFamily("phantoms_stage_videos", "Videos by stage and state.", labels=["stage", "state"])
    for pair, count in reading.videos.items():
        videos.add_metric(pair, count)
    yield videos
    oldest = GaugeMetricFamily(
        "phantoms_stage_oldest_seconds", "Seconds since the longest-waiting video became due; 0: none waits.", labels=["stage"]
    )
    for stage, seconds in reading.oldest_seconds.items():
        oldest.add_metric([stage], seconds)
    yield oldest
    letters = GaugeMetricFamily("phantoms_dead_letters", "Open dead letters.", labels=["stage", "class"])
    for pair, count in reading.dead_letters.items():
        letters.add_metric(pair, count)
    yield letters
    accounts = GaugeMetricFamily(
        "phantoms_account_state",
        "1 for the state that the account is in now, else 0.",
        labels=["platform", "account", "state"],
    )
    for labels, is_now in reading.accounts.items():
        accounts.add_metric(labels, is_now)
    yield accounts
    totals = reading.totals
    attempts = CounterMetricFamily(
        "phantoms_attempts",
        "Attempts that ended. The outcome is `done`, an error class, `deferred` or `abandoned`.",
        labels=["stage", "provider", "outcome"],
    )
    for labels, count in totals.attempts.items():
        attempts.add_metric(labels, count)
    yield attempts
    posts = CounterMetricFamily("phantoms_posts", "Published posts.", labels=["platform"])
    for platform, count in totals.posts.items():
        posts.add_metric([platform], count)
    yield posts
    yield CounterMetricFamily("phantoms_cost_usd", "Cost of all attempts that ended, in US dollars.", value=float(totals.cost_usd))
    yield _waits(reading)


def _waits(reading: StatisticsReading) -> Metric:
    buckets, below = [], 0
    for n, bound in enumerate([*map(str, BUCKETS), "+Inf"]):
        below += reading.totals.waits[n]
        buckets.append((bound, float(below)))
    return HistogramMetricFamily(
        "phantoms_approval_to_post_seconds",
        "Seconds from a video's approval to each of its posts, including the wait for a planned time.",
        buckets=buckets,
        sum_value=reading.totals.waited_seconds,
    )


def limit_metrics(pools: Sequence[PoolView], breakers: Sequence[BreakerState]) -> Iterator[Metric]:
    """Yield the metrics read from Redis. Pools of accounts that have not made a call yet are omitted."""
    state = GaugeMetricFamily("phantoms_breaker_state", "0 closed, 1 half-open, 2 open.", labels=["breaker"])
    for breaker in breakers:
        state.add_metric([breaker.name], BREAKER_STATES[breaker.state])
    yield state
    in_use = GaugeMetricFamily("phantoms_pool_slots_in_use", "Calls in flight.", labels=["pool"])
    limit = GaugeMetricFamily("phantoms_pool_slots_limit", "Limit of calls in flight, before throttling.", labels=["pool"])
    waiting = GaugeMetricFamily("phantoms_pool_slots_waiting", "Calls waiting for a slot.", labels=["pool"])
    factor = GaugeMetricFamily("phantoms_pool_factor", "Share of the limits left by throttling, above 0 to 1.", labels=["pool"])
    left = GaugeMetricFamily("phantoms_quota_left", "Units left of today's quota.", labels=["pool"])
    for pool in pools:
        if pool.pool.endswith(PATTERN):
            continue
        in_use.add_metric([pool.pool], pool.in_use)
        waiting.add_metric([pool.pool], pool.waiting)
        factor.add_metric([pool.pool], pool.factor)
        if pool.slots is not None:
            limit.add_metric([pool.pool], pool.slots)
        if pool.quota_left is not None:
            left.add_metric([pool.pool], pool.quota_left)
    yield from (in_use, limit, waiting, factor, left)
