"""Opens and closes breakers by hand, from the command line and the desk, with a reason and an entry in the audit log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.resilience.pools import SANDBOX
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.audit import Actor, AuditEntry
from phantoms_dagster.store.away import is_away
from phantoms_dagster.wiring.watching import known_breaker, watching

LONGEST_SECONDS = 366 * 86_400
_MOST_CHARACTERS = 500


@dataclass(frozen=True)
class BreakerSwitched:
    """What was done to a breaker.

    `sandbox_goes_on`: the sandbox's own breaker of the same name is in use and was not changed. `noted`: the audit log has an
    entry; it has none without a database or while the database does not answer.
    """

    breaker: str
    state: str
    why: str
    seconds: float | None = None
    sandbox_goes_on: bool = False
    noted: bool = False


class BreakerSwitch:
    """Opens and closes breakers. `note` writes the audit log; None if there is no database.

    Both methods raise NotFound for a name that no breaker can have, InvalidInput without a reason, and RedisAway. They must work
    while PostgreSQL is unavailable, so a failure to write the audit log is returned (`noted`) and not raised.
    """

    def __init__(self, settings: Settings, note: Callable[[AuditEntry], None] | None) -> None:
        self._settings = settings
        self._note = note

    async def trip(self, name: str, actor: Actor, *, why: str, seconds: float | None = None) -> BreakerSwitched:
        """Open it: calls stop at once and videos wait without failing. It is probed after `seconds`; None: open until reset."""
        breaker, reason = known_breaker(name), _reason(why)
        if seconds is not None and not 0 < seconds <= LONGEST_SECONDS:
            raise InvalidInput("a breaker can be opened for more than 0 seconds and at most a year")
        async with watching(self._settings) as watcher:
            states = {state.name: state.state for state in await watcher.breakers.look()}
            await watcher.breakers.trip(breaker, seconds=seconds, why=reason)
        noted = self._noted(
            actor, "trip", breaker, states.get(breaker, "closed"), {"state": "open", "why": reason, "seconds": seconds}
        )
        return BreakerSwitched(breaker, "open", reason, seconds, f"{SANDBOX}{breaker}" in states, noted)

    async def reset(self, name: str, actor: Actor, *, why: str) -> BreakerSwitched:
        """Close it and clear its failures."""
        breaker, reason = known_breaker(name), _reason(why)
        async with watching(self._settings) as watcher:
            before = await watcher.breakers.state(breaker)
            await watcher.breakers.reset(breaker, why=reason)
        noted = self._noted(actor, "reset", breaker, before.state, {"state": "closed", "why": reason})
        return BreakerSwitched(breaker, "closed", reason, noted=noted)

    def _noted(self, actor: Actor, action: str, breaker: str, before: str, after: dict[str, object]) -> bool:
        if self._note is None:
            return False
        try:
            self._note(AuditEntry(actor, f"{action} breaker", subject_of(breaker), {"state": before}, after))
        except SQLAlchemyError as error:
            if not is_away(error):
                raise
            return False
        return True


def subject_of(breaker: str) -> str:
    """The name of a breaker in the audit log."""
    return f"breaker {breaker}"


def _reason(why: str) -> str:
    said = " ".join(why.split())
    if not said:
        raise InvalidInput("give a reason: other people who find the breaker in this state need it")
    return said[:_MOST_CHARACTERS]
