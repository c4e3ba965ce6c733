"""The watch over the stores themselves. It runs in `phantoms metrics`, because Dagster's sensors do not run without PostgreSQL.

That Redis is away is told by the alert sensor, as long as PostgreSQL answers. So this watch only tells that Redis is back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

from phantoms_dagster.production.store_alerts import StoreAlerts
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.alerts import destinations

LOOK_SECONDS = 15.0
POSTGRESQL, REDIS = "PostgreSQL", "Redis"

_log = logging.getLogger(__name__)

# Why a store does not answer; None when it does.
Look = Callable[[], Awaitable[str | None]]


async def watch_stores(settings: Settings, looks: Mapping[str, Look], *, every_seconds: float = LOOK_SECONDS) -> None:
    """Look at each store again and again, until it is cancelled. Without a destination it ends at once."""
    targets = destinations(settings)
    if not targets:
        return
    pause = timedelta(minutes=settings.alert_minutes)
    watched = {name: StoreAlerts(name, pause=pause, tells_away=name != REDIS) for name in looks}
    while True:
        for name, alerts in watched.items():
            try:
                trouble = await looks[name]()
                failed = await asyncio.to_thread(alerts.look, trouble, targets, now=time.monotonic())
            except Exception:  # noqa: BLE001  the watch goes on, whatever one look runs into
                _log.exception("the watch cannot look at %s", name)
                continue
            if failed:
                reasons = "; ".join(sorted(set(failed.values())))
                _log.warning("%d destinations did not take the alert about %s (%s); it is sent again", len(failed), name, reasons)
        await asyncio.sleep(every_seconds)
