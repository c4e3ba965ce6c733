"""The Lua scripts that decide admission, atomically and on Redis' clock, and the constants that they share.

Each script is a file in `redis/lua/`; its head documents its arguments and answers.

A pool's keys begin with its base key. `#s`: hash of fencing token, theoretical arrival times (TAT), quota use, factor after 429s
and lengths of calls. `#h`: holders by end of lease. `#q`: waiters by ticket. `#w`: the same waiters by when their place expires.
`#r<n>`: times of the last grants of rate n. All times are microseconds of Redis' clock, exact in a double until the year 2255.
"""

from __future__ import annotations

from phantoms_dagster.resilience.redis.scripts import LuaScript, lua

# After Redis lost its memory, holders have this long to report their leases. Until then no new call is admitted.
RECOVERY_SECONDS = 2.0
# At most one recovery in this time: a client that keeps losing contact must not block all others.
_RECOVERY_EVERY_SECONDS = 10.0
# Calls arrive at the provider less regularly than they are granted, so each window is lengthened: by this share, at most by these
# seconds.
_SLACK_SHARE, _SLACK_SECONDS = 0.03, 1.0
# In a window this short, a burst and a little jitter would put more calls into one window than it allows. Its calls are therefore
# spaced, with a larger share of slack for jitter. The spacing is never below CLOSEST_SHARE of an even spacing; it may be below even
# to make up for send times that no call used. A send time is assigned up to AHEAD_SECONDS in advance, so the answer has time to
# arrive.
SHORT_SECONDS, SHORT_SLACK_SHARE, CLOSEST_SHARE, AHEAD_SECONDS = 5.0, 0.2, 0.9, 0.08
# A call counts as late when it takes this much longer than quick calls do. The estimate for quick calls follows a quicker call at
# once, and a slower one by this share.
LATE_SECONDS, SLOWLY = 0.02, 0.02
# After a loss, a rate's window is assumed full only if it is at most this long. A full day's window would stop an account for
# hours.
_SEEDED_SECONDS = 600
# A 429 cuts a pool's limits by a quarter, down to at most a quarter of the full limits. They return to full in ten minutes.
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
