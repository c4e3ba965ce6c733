"""Alerts about a store that is unavailable: one after a pause, and one when it is back.

The state is in memory, so no store is needed. `wiring.store_watch` checks the stores. `wiring.alerts` sends the messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

from phantoms_dagster.production.alerts import Message, Undelivered


class StoreAlerts:
    """Alerts about one store. `name` is for people. `announce_outage` is False when other code reports the outage.

    A destination that was not told about the outage is not told about its end.
    """

    def __init__(self, name: str, *, pause: timedelta, announce_outage: bool = True) -> None:
        self._name = name
        self._pause = pause.total_seconds()
        self._announce_outage = announce_outage
        self._since: float | None = None
        self._informed: set[str] = set()

    def look(self, trouble: str | None, destinations: Mapping[str, Callable[[Message], None]], *, now: float) -> dict[str, str]:
        """Send the alerts that are due. `trouble`: why the store does not answer; None when it does. `now`: monotonic seconds.

        Returns the destinations that did not accept a message, and why. They are tried again at the next look.
        """
        if trouble is None:
            failed = self._tell(self._back(now), {name: send for name, send in destinations.items() if name in self._informed})
            self._informed &= set(failed)
            self._since = self._since if failed else None
            return failed
        if self._since is None:
            self._since = now
        if now - self._since < self._pause:
            return {}
        uninformed = {name: send for name, send in destinations.items() if name not in self._informed}
        failed = self._tell(self._away(trouble, now), uninformed) if self._announce_outage else {}
        self._informed |= set(uninformed) - set(failed)
        return failed

    def _tell(self, message: Message, destinations: Mapping[str, Callable[[Message], None]]) -> dict[str, str]:
        failed = {}
        for name, send in destinations.items():
            try:
                send(message)
            except Undelivered as error:
                failed[name] = str(error)
        return failed

    def _away(self, trouble: str, now: float) -> Message:
        body = (
            f"{self._name} has not answered for {self._minutes(now)}: {trouble}\n"
            f"All videos wait. Nothing is lost, and work resumes by itself when {self._name} is back.\n\nNext:\nphantoms doctor"
        )
        return Message(f"Phantoms: {self._name} is away", body, urgent=True)

    def _back(self, now: float) -> Message:
        body = f"{self._name} answers again. It was away for {self._minutes(now)}. Work resumes by itself."
        return Message(f"Phantoms: {self._name} is back", body)

    def _minutes(self, now: float) -> str:
        minutes = round((now - (now if self._since is None else self._since)) / 60)
        return f"{minutes} minutes" if minutes > 1 else "a minute" if minutes else "less than a minute"
