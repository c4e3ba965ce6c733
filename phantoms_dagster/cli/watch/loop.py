"""The loop of `phantoms watch`: a screen with keys on a terminal, else one line per event."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from rich.live import Live
from sqlalchemy.exc import SQLAlchemyError

from phantoms_dagster.cli.console import err, out, plain, print_json
from phantoms_dagster.cli.open_video import video_file
from phantoms_dagster.cli.player import open_file
from phantoms_dagster.cli.problems import database_problem
from phantoms_dagster.cli.times import exact
from phantoms_dagster.cli.watch.screen import Snapshot, drawn, empty, happened
from phantoms_dagster.domain.errors import PhantomsError
from phantoms_dagster.domain.left_out import left_out
from phantoms_dagster.domain.outlook import Outages
from phantoms_dagster.store.outlook import AttemptSummary, Outlook
from phantoms_dagster.wiring import Services
from phantoms_dagster.wiring.this_user import this_user

# Query the database at most once a second, and spend at most a twentieth of the time on it.
LOOK_SECONDS, SHARE = 1.0, 20.0
# How often to ask Redis for open breakers.
BREAKERS_SECONDS = 5.0
MOST_EVENTS = 60
MOST_UNDECIDED = 100


class WatchPoller:
    """Polls the database and Redis, with a limited rate."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._outages, self._outages_at = Outages(), -BREAKERS_SECONDS
        self._last = empty()
        self._due = 0.0
        self.trouble = ""

    @property
    def wait(self) -> float:
        """Seconds until the next query."""
        return max(0.0, self._due - time.monotonic())

    def look(self) -> Snapshot:
        """Return a new snapshot. Raises SQLAlchemyError."""
        begun = time.monotonic()
        services, outlook = self._services, Outlook(self._services.engine)
        try:
            self._last = Snapshot(
                at=datetime.now(UTC),
                counts=services.catalogue().counts(),
                undecided=services.decisions().undecided(limit=MOST_UNDECIDED),
                waits=[item for item in services.waits_for_people() if item.id != "review"],
                latest=outlook.latest(most=MOST_EVENTS),
                upcoming=outlook.next_steps(),
                outages=self._asked(),
            )
            self.trouble = ""
        finally:
            took = time.monotonic() - begun
            self._due = time.monotonic() + max(LOOK_SECONDS, took * SHARE)
        return self._last

    def again(self) -> Snapshot:
        """Return a new snapshot. While the database is down, return the last one and set `trouble`."""
        try:
            return self.look()
        except SQLAlchemyError as error:
            self.trouble = database_problem(error)
            return self._last

    def _asked(self) -> Outages:
        if time.monotonic() - self._outages_at >= BREAKERS_SECONDS:
            self._outages = self._services.outages()
            self._outages_at = time.monotonic()
        return self._outages


def print_events(looks: WatchPoller, *, as_json: bool) -> None:
    """Print one line per event, starting with the newest ten. Never returns."""
    seen: dict[int, AttemptSummary] = {}
    told = ""
    first = True
    while True:
        snapshot = looks.again()
        if looks.trouble != told and (told := looks.trouble):
            err.print(plain(told), style="yellow", soft_wrap=True)
        news = list(_news(snapshot, seen))
        for one in news[-10:] if first else news:
            _print(one, as_json=as_json)
        sys.stdout.flush()
        first = False
        time.sleep(looks.wait)


def _news(snapshot: Snapshot, seen: dict[int, AttemptSummary]) -> Iterator[AttemptSummary]:
    """Yield what is new or changed since `seen`, oldest first, and update `seen`."""
    for one in reversed(snapshot.latest):
        if seen.get(one.id) != one:
            yield one
    seen.clear()
    seen.update({one.id: one for one in snapshot.latest})


def _print(one: AttemptSummary, *, as_json: bool) -> None:
    at, word, style = happened(one)
    if as_json:
        print_json({"at": at, "key": one.key, "stage": one.stage, "state": word, "class": one.error_class, "message": one.message})
        return
    why = f": {' '.join(one.message.split())}" if one.message and one.state not in ("done", "intent") else ""
    out.print(f"{exact(at)} {one.stage} [{style}]{word}[/] {one.key}{plain(why)}", soft_wrap=True)


def run_screen(looks: WatchPoller, services: Services) -> None:
    """Run the screen until the user presses q."""
    # These modules exist only on Unix; `print_events` works everywhere.
    from phantoms_dagster.cli.keyboard import keyboard  # noqa: PLC0415

    chosen, said, asked = 0, "", ""
    snapshot = looks.again()
    with keyboard() as keys, Live(console=out, screen=True, auto_refresh=False) as live:
        while True:
            chosen = max(0, min(chosen, len(snapshot.undecided) - 1))
            height = out.size.height
            live.update(drawn(snapshot, chosen=chosen, said=looks.trouble or said, height=height), refresh=True)
            pressed = keys.key(looks.wait)
            key = snapshot.undecided[chosen] if snapshot.undecided else ""
            if asked:
                said = _approved(services, asked) if pressed == "y" else f"{asked} was not approved" if pressed else said
                asked = asked if not pressed else ""
            elif pressed in ("q", "ctrl-c"):
                return
            elif pressed in ("up", "down"):
                chosen += 1 if pressed == "down" else -1
                said = ""
            elif pressed == "o" and key:
                said = _opened(services, key)
            elif pressed == "a" and key:
                asked, said = key, f"approve {key}? y or n"
            if not looks.wait:
                snapshot = looks.again()


def _opened(services: Services, key: str) -> str:
    try:
        path = video_file(key, "rendered_video", services.catalogue().stages(key), services.media_files)
    except (PhantomsError, OSError) as error:
        return str(error)
    by = open_file(path)
    return f"opened in {by}" if by else f"no player or browser here: {path}"


def _approved(services: Services, key: str) -> str:
    try:
        services.take_channels()
        decided = services.decisions().decide(key, approved=True, reviewer=this_user(), via="cli")
    except PhantomsError as error:
        return str(error)
    word = f"approved {key}, as the first of two" if decided.first else f"approved {key}"
    return "; ".join([word, *decided.warnings, *left_out(services.catalogue().outputs([key])).get(key, ())])
