"""Sends alerts when PostgreSQL or Redis stops answering. Runs in `phantoms metrics`, because sensors need PostgreSQL.

While PostgreSQL answers, the alert sensor reports that Redis is unavailable. So this watch reports only that Redis is back.
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

# Returns why a store does not answer; None if it does.
Look = Callable[[], Awaitable[str | None]]


async def watch_stores(settings: Settings, looks: Mapping[str, Look], *, every_seconds: float = LOOK_SECONDS) -> None:
    """Check each store repeatedly until cancelled. Returns at once if there is no destination."""
    targets = destinations(settings)
    if not targets:
        return
    pause = timedelta(minutes=settings.alerts.minutes)
    watched = {name: StoreAlerts(name, pause=pause, announce_outage=name != REDIS) for name in looks}
    while True:
        for name, alerts in watched.items():
            try:
                trouble = await looks[name]()
                failed = await asyncio.to_thread(alerts.look, trouble, targets, now=time.monotonic())
            except Exception:  # noqa: BLE001  no error may end the loop
                _log.exception("%s could not be checked", name)
                continue
            if failed:
                reasons = "; ".join(sorted(set(failed.values())))
                _log.warning("%d destinations did not accept the alert about %s (%s); it is sent again", len(failed), name, reasons)
        await asyncio.sleep(every_seconds)
