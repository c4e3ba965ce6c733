"""The Lua that keeps breakers, and its calls with typed answers. When to open or close is judged in `breaker`, not here.

A breaker lives under `<prefix>:<name>`: a hash (state, since, until, manual, counts per tenth of the window), `#probe` the
leased probe and `#log` its history. All times are microseconds of Redis' clock.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

from phantoms_dagster.resilience.redis_scripts import Argument, Script, Scripts

_KEPT_TRANSITIONS = 100
_FOREVER = 100 * 365 * 86_400.0

_HEAD = f"""
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local key, name = KEYS[1], ARGV[1]
local s = redis.call('HMGET', key, 'state', 'since', 'until', 'manual')
local state, since, until_, manual = s[1] or 'closed', s[2] or '', tonumber(s[3] or 0), s[4] or '0'
local function known() redis.call('SADD', KEYS[2], name) end
local function go(to, hold, why, by_hand)
  redis.call('LPUSH', key .. '#log', cjson.encode({{string.format('%.0f', now), state, to, why}}))
  redis.call('LTRIM', key .. '#log', 0, {_KEPT_TRANSITIONS - 1})
  if to ~= 'half-open' then redis.call('DEL', key .. '#probe') end
  if to == 'closed' then redis.call('DEL', key .. '#window', key .. '#streak') end
  state, since, until_, manual = to, string.format('%.0f', now), now + hold, by_hand
  redis.call('HSET', key, 'state', state, 'since', since, 'until', until_, 'manual', manual)
  known()
end
local function counts(window)
  local from, calls, failures = math.floor((now - window) / (window / 10)), 0, 0
  local w = redis.call('HGETALL', key .. '#window')
  for i = 1, #w, 2 do
    local bucket = tonumber(string.sub(w[i], 2))
    if bucket <= from then redis.call('HDEL', key .. '#window', w[i])
    else
      calls = calls + w[i + 1]
      if string.sub(w[i], 1, 1) == 'f' then failures = failures + w[i + 1] end
    end
  end
  return calls, failures
end
local function look(window)
  local calls, failures = counts(window)
  local wait = state == 'closed' and 0 or until_ - now
  if state == 'half-open' then wait = redis.call('PTTL', key .. '#probe') * 1000 end
  local streak = tonumber(redis.call('GET', key .. '#streak') or 0)
  return {{state, since == '' and -1 or now - tonumber(since), math.max(wait, 0), manual, calls, failures, streak}}
end
"""

# ARGV: name, successes, failures, window   -> look. The counts of this window; asking with zeroes only looks.
_RECORD = Script(
    _HEAD
    + """
local successes, failures, window = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local bucket = string.format('%.0f', math.floor(now / (window / 10)))
if successes + failures > 0 then
  if successes > 0 then redis.call('HINCRBY', key .. '#window', 's' .. bucket, successes) end
  if failures > 0 then redis.call('HINCRBY', key .. '#window', 'f' .. bucket, failures) end
  redis.call('PEXPIRE', key .. '#window', math.ceil(window / 500))
  -- Successes are told with the next failure: they came before it.
  if successes > 0 then redis.call('SET', key .. '#streak', failures) else redis.call('INCRBY', key .. '#streak', failures) end
  redis.call('PEXPIRE', key .. '#streak', math.ceil(window / 1000))
  known()
end
return look(window)
""",
    repeatable=False,
)
_LOOK = Script(_RECORD.source + " -- only looks")

# ARGV: name, probe, lease, window   -> {1 if the probe is ours, look...}. An open breaker whose time has come turns half-open.
_PROBE = Script(
    _HEAD
    + """
local got = 0
local holder = redis.call('GET', key .. '#probe')
if holder == ARGV[2] then got = 1
elseif not holder and (state == 'half-open' or (state == 'open' and now >= until_)) then
  if state == 'open' then go('half-open', 0, 'probe sent', '0') end
  redis.call('SET', key .. '#probe', ARGV[2], 'PX', math.ceil(ARGV[3] / 1000))
  got = 1
end
return {got, unpack(look(tonumber(ARGV[4])))}
"""
)

# ARGV: name, probe, '1' if it was sent, reset   A probe without a verdict: what was sent is not sent again at once.
_DROP = Script(
    _HEAD
    + """
if redis.call('GET', key .. '#probe') == ARGV[2] then
  if ARGV[3] == '1' then redis.call('PEXPIRE', key .. '#probe', math.ceil(ARGV[4] / 1000))
  else redis.call('DEL', key .. '#probe') end
end
return 1
"""
)

# ARGV: name, to, probe, reset, window   -> look. closed -> open for anybody; out of half-open only for the holder of the probe.
_MOVE = Script(
    _HEAD
    + """
local to, probe = ARGV[2], ARGV[3]
if state == 'closed' and to == 'open' then go('open', tonumber(ARGV[4]), 'too many failures', '0')
elseif state == 'half-open' and probe ~= '' and redis.call('GET', key .. '#probe') == probe then
  if to == 'open' then go('open', tonumber(ARGV[4]), 'probe failed', '0')
  elseif to == 'closed' then go('closed', 0, 'probe answered', '0') end
end
return look(tonumber(ARGV[5]))
"""
)

# ARGV: name, to, seconds, why   -> look. A person's word goes always.
_SET = Script(
    _HEAD
    + """
go(ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[2] == 'open' and '1' or '0')
return look(1)
""",
    repeatable=False,
)

_HISTORY = Script("return redis.call('LRANGE', KEYS[1] .. '#log', 0, -1)")
_NAMES = Script("return redis.call('SMEMBERS', KEYS[1])")


@dataclass(frozen=True, slots=True)
class Look:
    """A breaker as Redis sees it. Seconds: since the last change, and until the next probe may be claimed.

    `streak`: failures since the last success, none further apart than the window.
    """

    state: str
    since_ago: float | None
    wait: float
    manual: bool
    calls: int
    failures: int
    streak: int


class Policy(Protocol):
    """The parts of a breaker's policy that Redis is told."""

    @property
    def window_seconds(self) -> float: ...
    @property
    def reset_seconds(self) -> float: ...


class Remote:
    """One breaker on Redis. Every method raises NotYet while Redis is away."""

    def __init__(self, scripts: Scripts, prefix: str, name: str, policy: Policy) -> None:
        self._scripts = scripts
        self._keys = [f"{prefix}:{name}", f"{prefix}s"]
        self._name = name
        self._window = _us(policy.window_seconds)
        self._reset = _us(policy.reset_seconds)

    async def look(self) -> Look:
        """Only look."""
        return _look(await self._run(_LOOK, 0, 0, self._window))

    async def record(self, *, successes: int, failures: int) -> Look:
        """Add to the window and look."""
        return _look(await self._run(_RECORD, successes, failures, self._window))

    async def probe(self, probe_id: str, *, lease_seconds: float) -> tuple[bool, Look]:
        """Claim the fleet's only probe."""
        got, *look = await self._run(_PROBE, probe_id, _us(lease_seconds), self._window)
        return int(got) == 1, _look(look)

    async def drop_probe(self, probe_id: str, *, sent: bool) -> None:
        """Give up a probe without a verdict: at once when nothing was sent, else after another reset time."""
        await self._run(_DROP, probe_id, int(sent), self._reset)

    async def move(self, to: str, probe_id: str | None) -> Look:
        """Change the state if nobody was quicker."""
        return _look(await self._run(_MOVE, to, probe_id or "", self._reset, self._window))

    async def trip(self, seconds: float | None, why: str) -> Look:
        """Open it, for ever without `seconds`."""
        return _look(await self._run(_SET, "open", _us(_FOREVER if seconds is None else seconds), why))

    async def reset(self, why: str) -> Look:
        """Close it."""
        return _look(await self._run(_SET, "closed", 0, why))

    async def history(self) -> list[tuple[int, str, str, str]]:
        """(time in microseconds, old, new, why), newest first."""
        rows = await self._run(_HISTORY)
        return [(int(at), old, new, why) for at, old, new, why in map(json.loads, rows)]

    async def _run(self, script: Script, *args: Argument) -> Any:
        return await self._scripts.run(script, self._keys, [self._name, *args])


async def names(scripts: Scripts, prefix: str) -> list[str]:
    """Every breaker that ever counted something or changed."""
    return sorted(await scripts.run(_NAMES, [f"{prefix}s"], []))


def _look(row: list[Any]) -> Look:
    state, since_ago, wait, manual, calls, failures, streak = row
    return Look(
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
