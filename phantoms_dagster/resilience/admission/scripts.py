"""The Lua that decides admissions, atomically, on Redis' own clock. Each script is a file in `redis/lua/`, which says
what its arguments and answers mean. The numbers that they share are here.

A pool lives under its base key: `#s` hash (fencing token, TATs, quota, learnt factor, lengths of calls), `#h` holders by end of
lease, `#q` waiters by ticket, `#w` the same waiters by when their place is given up, `#r<n>` times of the last grants of each rate.
All times are microseconds of Redis' clock, exact in a double until the year 2255.
"""

from __future__ import annotations

from phantoms_dagster.resilience.redis.scripts import LuaScript, lua

# After Redis lost its memory, holders have this long to say what they still hold before anybody else is let in.
RECOVERY_SECONDS = 2.0
# A client that keeps losing contact may not keep everybody waiting.
_RECOVERY_EVERY_SECONDS = 10.0
# Arrivals at the provider are less regular than grants: windows are kept this much longer (a share, and at most so long).
_SLACK_SHARE, _SLACK_SECONDS = 0.03, 1.0
# In a window this short a burst and a little jitter would put more calls into one window than it allows. Its calls are spaced
# instead, never closer than this share of an even spacing (closer than even: to make up for instants that nobody took), with a
# larger share for jitter. An instant is dealt this long ahead, so that the way of the answer costs no punctuality.
SHORT_SECONDS, SHORT_SLACK_SHARE, CLOSEST_SHARE, AHEAD_SECONDS = 5.0, 0.2, 0.9, 0.08
# A call counts as late from this on. What quick calls take is learnt at once from a quicker one, and slowly from slower ones.
LATE_SECONDS, SLOWLY = 0.02, 0.02
# Seeding the window of a rate after a loss is worth it for short windows only; a day's worth would stop an account for hours.
_SEEDED_SECONDS = 600
# A refused call halves nothing: it takes a quarter off, at most down to a quarter, and the whole comes back in ten minutes.
CUT, FLOOR, RESTORE_SECONDS = 0.75, 0.25, 600.0

_CONSTANTS = {
    "RECOVERY": RECOVERY_SECONDS * 1e6,
    "RECOVERY_EVERY": _RECOVERY_EVERY_SECONDS * 1e6,
    "SLACK_SHARE": _SLACK_SHARE,
    "SLACK": _SLACK_SECONDS * 1e6,
    "SEEDED": _SEEDED_SECONDS * 1e6,
    "SHORT": SHORT_SECONDS * 1e6,
    "SHORT_SHARE": SHORT_SLACK_SHARE,
    "CLOSEST": CLOSEST_SHARE,
    "AHEAD": AHEAD_SECONDS * 1e6,
    "CUT": CUT,
    "FLOOR": FLOOR,
    "RESTORE": RESTORE_SECONDS * 1e6,
}

ACQUIRE = LuaScript(lua("contact", "acquire", **_CONSTANTS))

RENEW = LuaScript(lua("contact", "renew", **_CONSTANTS))

RELEASE = LuaScript(lua("release", NOTICED=LATE_SECONDS * 1e6, SLOWLY=SLOWLY))

PENALISE = LuaScript(lua("penalise", **_CONSTANTS))

LOOK = LuaScript(lua("look_at_pools", **_CONSTANTS))
