"""Times as the reader's wall shows them, with the name of the zone: a time without one is read wrongly in a log or a chat."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_SOON = timedelta(hours=20)


def local(moment: datetime | None) -> str:
    """`2026-11-26 10:40 CET`; empty for no time."""
    if moment is None:
        return ""
    there = moment.astimezone()
    return f"{there:%Y-%m-%d %H:%M} {zone(there)}"


def exact(moment: datetime) -> str:
    """`2026-11-26 10:40:07 CET`."""
    there = moment.astimezone()
    return f"{there:%Y-%m-%d %H:%M:%S} {zone(there)}"


def soon(moment: datetime, now: datetime | None = None) -> str:
    """`10:40 CET` when that is clear, within 20 hours; else with the day."""
    there = moment.astimezone()
    near = abs(moment - (now or datetime.now(UTC))) < _SOON
    return f"{there:%H:%M} {zone(there)}" if near else local(moment)


def zone(there: datetime) -> str:
    """The zone's name. Zones without letters say how far they are from UTC: `UTC-03`."""
    name = there.tzname() or "UTC"
    return f"UTC{name}" if name[:1] in "+-" else name
