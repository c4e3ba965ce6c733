"""The Lua scripts that hold the state of breakers, and calls to them with typed answers. `breaker` decides when to open or close.

Each script is a file in `redis/lua/`. A breaker's keys begin with `<prefix>:<name>`. The key itself: hash of state, since, until
and manual. `#window`: counts per tenth of the window. `#streak`: failures in a row. `#probe`: the leased probe. `#log`: its
history. All times are microseconds of Redis' clock.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

from phantoms_dagster.resilience.redis.scripts import Argument, LuaScript, Scripts, lua

_KEPT_TRANSITIONS = 100
_FOREVER = 100 * 365 * 86_400.0


_RECORD = LuaScript(lua("breaker", "record", KEPT=_KEPT_TRANSITIONS), repeatable=False)
_LOOK = LuaScript(_RECORD.source + " -- only looks")

_PROBE = LuaScript(lua("breaker", "probe", KEPT=_KEPT_TRANSITIONS))

_DROP = LuaScript(lua("breaker", "drop_probe", KEPT=_KEPT_TRANSITIONS))

_MOVE = LuaScript(lua("breaker", "move_breaker", KEPT=_KEPT_TRANSITIONS))

_SET = LuaScript(lua("breaker", "set_breaker", KEPT=_KEPT_TRANSITIONS), repeatable=False)

_HISTORY = LuaScript("return redis.call('LRANGE', KEYS[1] .. '#log', 0, -1)")
_NAMES = LuaScript("return redis.call('SMEMBERS', KEYS[1])")


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """A breaker's state in Redis. `since_ago`: seconds since the last change. `wait`: seconds until the next probe may be claimed.

    `streak`: failures since the last success, no two of them further apart than the window.
    """

    state: str
    since_ago: float | None
    wait: float
    manual: bool
    calls: int
    failures: int
    streak: int


class Policy(Protocol):
    """The parts of a breaker's policy that the scripts need."""

    @property
    def window_seconds(self) -> float: ...
    @property
    def reset_seconds(self) -> float: ...


class RemoteBreaker:
    """One breaker in Redis. Every method raises NotYet while Redis is unavailable."""

    def __init__(self, scripts: Scripts, prefix: str, name: str, policy: Policy) -> None:
        self._scripts = scripts
        self._keys = [f"{prefix}:{name}", f"{prefix}s"]
        self._name = name
        self._window = _us(policy.window_seconds)
        self._reset = _us(policy.reset_seconds)

    async def look(self) -> BreakerSnapshot:
        """Read the state."""
        return _look(await self._run(_LOOK, 0, 0, self._window))

    async def record(self, *, successes: int, failures: int) -> BreakerSnapshot:
        """Add calls to the window and read the state."""
        return _look(await self._run(_RECORD, successes, failures, self._window))

    async def probe(self, probe_id: str, *, lease_seconds: float) -> tuple[bool, BreakerSnapshot]:
        """Claim the single probe. True if it is ours, and the state."""
        got, *look = await self._run(_PROBE, probe_id, _us(lease_seconds), self._window)
        return int(got) == 1, _look(look)

    async def drop_probe(self, probe_id: str, *, sent: bool) -> None:
        """Give up a probe that decided nothing: at once when it was not sent, else after another reset time."""
        await self._run(_DROP, probe_id, int(sent), self._reset)

    async def move(self, to: str, probe_id: str | None) -> BreakerSnapshot:
        """Change the state unless another process already did. Returns the resulting state."""
        return _look(await self._run(_MOVE, to, probe_id or "", self._reset, self._window))

    async def trip(self, seconds: float | None, why: str) -> BreakerSnapshot:
        """Open it, without `seconds` for good."""
        return _look(await self._run(_SET, "open", _us(_FOREVER if seconds is None else seconds), why))

    async def reset(self, why: str) -> BreakerSnapshot:
        """Close it."""
        return _look(await self._run(_SET, "closed", 0, why))

    async def history(self) -> list[tuple[int, str, str, str]]:
        """(time in microseconds, old, new, why), newest first."""
        rows = await self._run(_HISTORY)
        return [(int(at), old, new, why) for at, old, new, why in map(json.loads, rows)]

    async def _run(self, script: LuaScript, *args: Argument) -> Any:
        return await self._scripts.run(script, self._keys, [self._name, *args])


async def names(scripts: Scripts, prefix: str) -> list[str]:
    """The names of all breakers that ever counted a call or changed state, sorted."""
    return sorted(await scripts.run(_NAMES, [f"{prefix}s"], []))


def _look(row: list[Any]) -> BreakerSnapshot:
    state, since_ago, wait, manual, calls, failures, streak = row
    return BreakerSnapshot(
        state=state,
        since_ago=None if int(since_ago) < 0 else int(since_ago) / 1e6,
        wait=int(wait) / 1e6,
        manual=manual == "1",
        calls=int(calls),
        failures=int(failures),
        streak=int(streak),
    )


def _us(seconds: float) -> int:
    return int(seconds * 1e6)
