"""Alerts as people get them: the product's own reading, grouping and wording, with a destination that records them."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.exc import DBAPIError

from phantoms_dagster.production import alerts
from phantoms_dagster.wiring import Services
from phantoms_dagster.wiring.alerts import read

EVERY_SECONDS = 5.0
DESTINATION = "recorder"
_BREAKER = re.compile(r"^breaker (\S+) opened")
_ACCOUNT = re.compile(r"^account (\S+?):(\S+) waits since")
_LETTERS = re.compile(r"^\d+ x (\S+): (\S+)")


@dataclass(frozen=True)
class Cry:
    """A message. `at`: seconds since the epoch; `news`: the lines that report something."""

    at: float
    news: tuple[str, ...]


class AlertRecorder:
    """Looks for news every few seconds in a thread, like the alert sensor, and keeps what would have been sent."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._told: dict[str, alerts.SentAlerts] = {}
        self._pause = timedelta(minutes=services.settings.alerts.minutes)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._walk, name="recorder", daemon=True)
        self.messages: list[Cry] = []
        self.away = 0

    def __enter__(self) -> AlertRecorder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def last_round(self) -> None:
        """Stop looking, and deliver the alerts that are still held back."""
        self._stop.set()
        self._thread.join()
        self._look(timedelta(0))

    def told(self) -> Counter[str]:
        """Return how many messages reported each cause.

        A cause is an integration, `account:<platform>:<name>`, `letters:<stage>`, or the line itself. A cause in two lines of one
        message counts twice, because people read it twice.
        """
        counted: Counter[str] = Counter()
        for message in self.messages:
            lines = Counter(cause(line) for line in message.news)
            # The breakers of a provider and of its accounts are one cause.
            counted.update({name: 1 if name.startswith("breaker:") else times for name, times in lines.items()})
        return Counter({name.removeprefix("breaker:"): times for name, times in counted.items()})

    def look(self) -> None:
        """Look for news now."""
        self._look(self._pause)

    def _walk(self) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            self.look()

    def _look(self, pause: timedelta) -> None:
        services = self._services
        try:
            reading = read(services, alerts.read_letters_since(self._told, [DESTINATION]))
        except DBAPIError:
            self.away += 1  # the sensor skips its tick
            return
        delivery = alerts.deliver(self._told, reading, {DESTINATION: self._hear}, now=services.clock.now(), pause=pause)
        # As the sensor does: through its cursor.
        self._told = alerts.load_cursor(alerts.dump_cursor(delivery.told))

    def _hear(self, message: alerts.Message) -> None:
        self.messages.append(Cry(time.time(), tuple(_news(message.body))))


def _news(body: str) -> Iterator[str]:
    """Return the lines before the next step, without the details of a group of letters."""
    for line in body.split("\n\nNext:", 1)[0].splitlines():
        if line and not line.startswith("  "):
            yield line


def cause(line: str) -> str:
    """Return the cause that a line of an alert reports."""
    if found := _BREAKER.match(line):
        return "breaker:" + found[1].split(":", 1)[0]
    if found := _ACCOUNT.match(line):
        return f"account:{found[1]}:{found[2]}"
    if line.startswith("Redis cannot be used"):
        return "redis"
    if found := _LETTERS.match(line):
        return f"letters:{found[1]}"
    return line
