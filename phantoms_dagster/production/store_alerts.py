"""Alerts about a store that is away: one after a pause, one when it is back. They are decided in memory, so they need no store.

Who looks at the stores, and how a message is sent, is said in `wiring.store_watch` and `wiring.alerts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

from phantoms_dagster.production.alerts import Message, Undelivered


class StoreAlerts:
    """What the destinations know of one store. `name` is for people; `tells_away` False: somebody else tells that it is away.

    A destination that was not told that the store is away is not told that it is back.
    """

    def __init__(self, name: str, *, pause: timedelta, tells_away: bool = True) -> None:
        self._name = name
        self._pause = pause.total_seconds()
        self._tells_away = tells_away
        self._since: float | None = None
        self._knows: set[str] = set()

    def look(self, trouble: str | None, destinations: Mapping[str, Callable[[Message], None]], *, now: float) -> dict[str, str]:
        """Tell of it what is due. `trouble`: why the store does not answer, None when it does; `now`: seconds of a steady clock.

        The answer says which destinations took nothing, and why. They are told with the next look.
        """
        if trouble is None:
            failed = self._tell(self._back(now), {name: send for name, send in destinations.items() if name in self._knows})
            self._knows &= set(failed)
            self._since = self._since if failed else None
            return failed
        if self._since is None:
            self._since = now
        if now - self._since < self._pause:
            return {}
        ignorant = {name: send for name, send in destinations.items() if name not in self._knows}
        failed = self._tell(self._away(trouble, now), ignorant) if self._tells_away else {}
        self._knows |= set(ignorant) - set(failed)
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
            f"All videos wait. Nothing is lost, and work goes on by itself when {self._name} is back.\n\nNext:\nphantoms doctor"
        )
        return Message(f"Phantoms: {self._name} is away", body, urgent=True)

    def _back(self, now: float) -> Message:
        body = f"{self._name} answers again. It was away for {self._minutes(now)}. Work goes on by itself."
        return Message(f"Phantoms: {self._name} is back", body)

    def _minutes(self, now: float) -> str:
        minutes = round((now - (now if self._since is None else self._since)) / 60)
        return f"{minutes} minutes" if minutes > 1 else "a minute" if minutes else "less than a minute"
