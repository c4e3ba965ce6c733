"""A person's word to a breaker, from the command line and the desk: open it or close it, with a reason, and note who did it."""

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
class Switched:
    """What was done. `sandbox_goes_on`: calls that the sandbox answers have a breaker of their own, which is in use and stays as it
    is. `noted`: the audit log has it; it has not when there is no database, or while that does not answer.
    """

    breaker: str
    state: str
    why: str
    seconds: float | None = None
    sandbox_goes_on: bool = False
    noted: bool = False


class BreakerSwitch:
    """Opens and closes breakers. `note` writes the audit log; None: there is no database.

    Both methods raise NotFound for a name that no breaker can have, InvalidInput without a reason, and RedisAway. A brake must work
    while PostgreSQL is away, so a log that cannot be written is told, not raised.
    """

    def __init__(self, settings: Settings, note: Callable[[AuditEntry], None] | None) -> None:
        self._settings = settings
        self._note = note

    async def trip(self, name: str, actor: Actor, *, why: str, seconds: float | None = None) -> Switched:
        """Open it: calls stop at once, videos wait, nothing fails. It is probed after `seconds`; None: open until it is reset."""
        breaker, reason = known_breaker(name), _reason(why)
        if seconds is not None and not 0 < seconds <= LONGEST_SECONDS:
            raise InvalidInput("a breaker is tripped for seconds above 0, a year at most")
        async with watching(self._settings) as watcher:
            states = {state.name: state.state for state in await watcher.breakers.look()}
            await watcher.breakers.trip(breaker, seconds=seconds, why=reason)
        noted = self._noted(
            actor, "trip", breaker, states.get(breaker, "closed"), {"state": "open", "why": reason, "seconds": seconds}
        )
        return Switched(breaker, "open", reason, seconds, f"{SANDBOX}{breaker}" in states, noted)

    async def reset(self, name: str, actor: Actor, *, why: str) -> Switched:
        """Close it and forget its failures."""
        breaker, reason = known_breaker(name), _reason(why)
        async with watching(self._settings) as watcher:
            before = await watcher.breakers.state(breaker)
            await watcher.breakers.reset(breaker, why=reason)
        noted = self._noted(actor, "reset", breaker, before.state, {"state": "closed", "why": reason})
        return Switched(breaker, "closed", reason, noted=noted)

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
    """What the audit log calls a breaker."""
    return f"breaker {breaker}"


def _reason(why: str) -> str:
    said = " ".join(why.split())
    if not said:
        raise InvalidInput("say why: whoever finds the breaker like this will want to know")
    return said[:_MOST_CHARACTERS]
