"""The Lua that decides admissions, atomically, on Redis' own clock. What its arguments and answers mean stands beside each.

A pool lives under its base key: `#s` hash (fencing token, TATs, quota, learnt factor, lengths of calls), `#h` holders by end of
lease, `#q` waiters by ticket, `#w` the same waiters by when their place is given up, `#r<n>` times of the last grants of each rate.
All times are microseconds of Redis' clock, exact in a double until the year 2255.
"""

from __future__ import annotations

from phantoms_dagster.resilience.redis_scripts import Script

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

_CONSTANTS = f"""
local RECOVERY, RECOVERY_EVERY = {RECOVERY_SECONDS * 1e6:.0f}, {_RECOVERY_EVERY_SECONDS * 1e6:.0f}
local SLACK_SHARE, SLACK, SEEDED = {_SLACK_SHARE}, {_SLACK_SECONDS * 1e6:.0f}, {_SEEDED_SECONDS * 1e6:.0f}
local SHORT, SHORT_SHARE, CLOSEST = {SHORT_SECONDS * 1e6:.0f}, {SHORT_SLACK_SHARE}, {CLOSEST_SHARE}
local AHEAD = {AHEAD_SECONDS * 1e6:.0f}
local CUT, FLOOR, RESTORE = {CUT}, {FLOOR}, {RESTORE_SECONDS * 1e6:.0f}
"""

# contact(key, known, lost) -> epoch, time of the last loss. The epoch names one life of Redis' memory. Whoever knew another
# one (FLUSHALL, a restart without its data) or lost contact (a restart with them: leases may have run out meanwhile) begins
# a recovery. A client that knew none, on an empty Redis, does not: that is a first start.
_CONTACT = """
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local function contact(key, known, lost)
  local s = redis.call('HMGET', key, 'epoch', 'lost')
  local epoch, since = s[1], tonumber(s[2] or 0)
  if not epoch then
    epoch = string.format('%.0f', now)
    since = known ~= '' and now or 0
    redis.call('HSET', key, 'epoch', epoch, 'lost', since)
  elseif (known ~= '' and known ~= epoch and since < tonumber(epoch)) or (lost == '1' and now - since > RECOVERY_EVERY) then
    since = now
    redis.call('HSET', key, 'lost', since)
  end
  return epoch, since
end
"""

# KEYS: contact, breakers..., pool bases...
# ARGV: id, ticket ('0': none yet), patience, known epoch, lost, cost, instant that was missed ('0': none; it is dealt anew),
#       number of breakers, per breaker '1' if this call is its probe, then per pool: slots (-1: any), lease, number of rates,
#       (calls, window, burst) each, quota (-1: none) and, with a quota, the day and the use of it that the caller knows of, the
#       number of midnights and those.
# -> {1, token, now, epoch, then per pool day and used, and last the instant to send at}   granted
#    {0, wait, ticket, epoch, pool (from 1), kind, now}   wait; pool 0: the whole of Redis recovers
#    {2, now}                                             the midnights do not surround Redis' time
#    {3, wait, breaker (from 1)}                          that breaker is open
ACQUIRE = Script(
    _CONSTANTS
    + _CONTACT
    + """
local a = 0
local function text() a = a + 1 return ARGV[a] end
local function number() a = a + 1 return tonumber(ARGV[a]) end
local id, ticket, patience = text(), number(), number()
local epoch, lost_at = contact(KEYS[1], text(), text())
local cost, missed, breakers = number(), text(), number()
for i = 1, breakers do
  local probe = text()
  local b = redis.call('HMGET', KEYS[1 + i], 'state', 'until')
  if probe ~= '1' and b[1] and b[1] ~= 'closed' then return {3, math.max(tonumber(b[2] or 0) - now, 0), i} end
end
if ticket == 0 then ticket = now end
local pools, count, mine = {}, #KEYS - 1 - breakers, 0
for p = 1, count do
  local base = KEYS[1 + breakers + p]
  local pool = {base = base, slots = number(), lease = number(), rates = {}}
  for i = 1, number() do pool.rates[i] = {calls = number(), window = number(), burst = number()} end
  pool.quota = number()
  pool.day, pool.reset = 0, 0
  if pool.quota >= 0 then
    pool.known_day, pool.known_used = number(), number()
    for _ = 1, number() do
      local midnight = number()
      if midnight <= now then pool.day = midnight elseif pool.reset == 0 then pool.reset = midnight end
    end
    if pool.day == 0 or pool.reset == 0 then return {2, now} end
  end
  redis.call('ZREMRANGEBYSCORE', base .. '#h', '-inf', now)
  for _, dead in ipairs(redis.call('ZRANGEBYSCORE', base .. '#w', '-inf', now, 'LIMIT', 0, 500)) do
    redis.call('ZREM', base .. '#q', dead)
    redis.call('ZREM', base .. '#w', dead)
  end
  if redis.call('ZSCORE', base .. '#h', id) then mine, pool.mine = mine + 1, true end
  if missed ~= '0' then
    for i = 1, #pool.rates do redis.call('LREM', base .. '#r' .. i, 1, missed) end
  end
  pools[p] = pool
end
-- When this call may be sent: later than now by no more than AHEAD.
local at = now

-- Each pool's own wait, `ahead` being its older waiters: capacity that they are about to take is not there.
local function judge(pool)
  local base, wait, kind = pool.base, 0, ''
  local function longer(w, k) if w > wait then wait, kind = w, k end end
  local fields = {'token', 'pause', 'factor', 'factor_at', 'hold', 'day', 'used'}
  for i = 1, #pool.rates do fields[#fields + 1] = 'tat' .. i end
  local s = redis.call('HMGET', base .. '#s', unpack(fields))
  pool.token = tonumber(s[1] or 0)
  longer(tonumber(s[2] or 0) - now, 'paused')
  local factor = s[3] and math.min(1, tonumber(s[3]) + (now - tonumber(s[4])) / RESTORE) or 1
  local ahead = redis.call('ZCOUNT', base .. '#q', '-inf', '(' .. string.format('%.0f', ticket))
  if pool.slots >= 0 and not pool.mine then
    local slots = math.max(1, math.floor(pool.slots * factor))
    local place = redis.call('ZCARD', base .. '#h') + ahead - slots + 1
    if place > 0 then
      -- Whoever is next looks in ten times per expected release, those behind when it may be their turn.
      local step = tonumber(s[5] or 50000) / slots
      longer(math.min(1000000, math.max(2000, step * (0.1 + 0.5 * (place - 1)))), 'slots')
    end
  end
  for i, rate in ipairs(pool.rates) do
    local calls = math.max(1, math.floor(rate.calls * factor))
    local log = base .. '#r' .. i
    local seed = now - lost_at < rate.window and rate.window <= SEEDED and redis.call('EXISTS', log) == 0
    local short = rate.window <= SHORT
    local span = rate.window + math.min(SLACK, rate.window * (short and SHORT_SHARE or SLACK_SHARE))
    rate.step = (short and span or rate.window) / rate.calls / factor
    local burst = math.min(rate.burst, calls) * rate.step
    rate.tat = math.max(tonumber(s[7 + i] or 0), seed and now + burst or now)
    if seed then
      for n = calls - 1, 0, -1 do redis.call('LPUSH', log, string.format('%.0f', now - n * rate.step)) end
      redis.call('PEXPIRE', log, math.ceil(rate.window / 500))
    end
    local due = rate.tat + rate.step * (ahead + 1) - burst
    local last = short and redis.call('LINDEX', log, 0)
    if last then due = math.max(due, tonumber(last) + rate.step * CLOSEST * (ahead + 1)) end
    local oldest = redis.call('LINDEX', log, calls - 1 - ahead % calls)
    if oldest then due = math.max(due, tonumber(oldest) + span * (1 + math.floor(ahead / calls))) end
    longer(due - now - (short and AHEAD or 0), 'rate')
    at = math.max(at, math.ceil(due))
  end
  pool.used = s[6] and tonumber(s[6]) == pool.day and tonumber(s[7]) or 0
  if pool.quota >= 0 then
    if pool.known_day == pool.day then pool.used = math.max(pool.used, pool.known_used) end
    if pool.used + cost > pool.quota then longer(pool.reset - now, 'daily') end
  end
  return wait, kind
end

local wait, kind, where, waits = 0, '', 0, {}
local held = mine == count
local again = held and missed == '0'
if now < lost_at + RECOVERY and not held then wait, kind = lost_at + RECOVERY - now, 'recovery' end
local recovering = wait > 0
for p, pool in ipairs(pools) do
  local w, k = judge(pool)
  waits[p] = w
  if w > wait and not again then wait, kind, where = w, k, p end
end

if wait > 0 then
  wait = math.ceil(wait)
  for p, pool in ipairs(pools) do
    -- A place is kept only where this call is stopped, so that nobody else waits for what it cannot use; and only for one
    -- that stays, for two seconds longer than it was told to wait.
    if wait <= patience and (waits[p] > 0 or recovering) then
      redis.call('ZADD', pool.base .. '#q', ticket, id)
      redis.call('ZADD', pool.base .. '#w', now + wait + 2000000, id)
    else
      redis.call('ZREM', pool.base .. '#q', id)
      redis.call('ZREM', pool.base .. '#w', id)
    end
  end
  return {0, wait, ticket, epoch, where, kind, now}
end

local token = now
for _, pool in ipairs(pools) do token = math.max(token, pool.token + 1) end
local answer = {1, token, now, epoch}
for _, pool in ipairs(pools) do
  local base = pool.base
  redis.call('ZADD', base .. '#h', now + pool.lease, id)
  redis.call('ZREM', base .. '#q', id)
  redis.call('ZREM', base .. '#w', id)
  local set = {'token', token}
  -- The same call asking again (its answer was lost) has paid already.
  if not again then
    for i, rate in ipairs(pool.rates) do
      set[#set + 1] = 'tat' .. i
      set[#set + 1] = string.format('%.0f', math.max(rate.tat, at) + rate.step)
      local log = base .. '#r' .. i
      redis.call('LPUSH', log, string.format('%.0f', math.max(at, tonumber(redis.call('LINDEX', log, 0) or 0))))
      redis.call('LTRIM', log, 0, rate.calls - 1)
      redis.call('PEXPIRE', log, math.ceil(rate.window / 500))
    end
    if pool.quota >= 0 and not held then
      pool.used = pool.used + cost
      set[#set + 1] = 'day'
      set[#set + 1] = pool.day
      set[#set + 1] = 'used'
      set[#set + 1] = pool.used
    end
  end
  redis.call('HSET', base .. '#s', unpack(set))
  if pool.token == 0 then redis.call('SADD', KEYS[1] .. ':pools', base) end
  redis.call('EXPIRE', base .. '#s', 259200)
  answer[#answer + 1] = pool.day
  answer[#answer + 1] = pool.used
end
answer[#answer + 1] = again and now or at
return answer
"""
)

# KEYS: contact, pool bases...   ARGV: id, known epoch, lost, then per pool its lease ('0' pools: only say hello)
# -> {1 if every slot is (again) held, epoch}. A lease that ran out is gone, except while Redis recovers.
RENEW = Script(
    _CONSTANTS
    + _CONTACT
    + """
local epoch, lost_at = contact(KEYS[1], ARGV[2], ARGV[3])
local held = 1
for p = 2, #KEYS do
  local until_ = redis.call('ZSCORE', KEYS[p] .. '#h', ARGV[1])
  if (until_ and tonumber(until_) > now) or now < lost_at + RECOVERY then
    redis.call('ZADD', KEYS[p] .. '#h', now + tonumber(ARGV[2 + p]), ARGV[1])
  else
    held = 0
  end
end
return {held, epoch}
"""
)

# KEYS: pool bases...   ARGV: id, when it was granted (0: it only waited), its instant, then per pool the numbers of its rates with
# a short window ('1,3'; '' if none). Gives back slots and places in line.
# A call that took longer than the quick ones do may have arrived that much later than at its instant. The log of a short window
# then counts it from there, so that what a stalled provider or a busy machine held up is not followed by as many calls again.
RELEASE = Script(
    f"local NOTICED, SLOWLY = {LATE_SECONDS * 1e6:.0f}, {SLOWLY}"
    + """
local t = redis.call('TIME')
local held = t[1] * 1000000 + t[2] - tonumber(ARGV[2])
local function count_from(log, at, later)
  local left = redis.call('PTTL', log)
  if redis.call('LREM', log, 1, at) == 0 then return end
  local before
  for _, entry in ipairs(redis.call('LRANGE', log, 0, -1)) do
    if tonumber(entry) <= later then before = entry break end
  end
  local moved = string.format('%.0f', later)
  if before then redis.call('LINSERT', log, 'BEFORE', before, moved) else redis.call('RPUSH', log, moved) end
  redis.call('PEXPIRE', log, left + math.ceil((later - tonumber(at)) / 1000))
end
for p, base in ipairs(KEYS) do
  if redis.call('ZREM', base .. '#h', ARGV[1]) == 1 and ARGV[2] ~= '0' then
    local known = redis.call('HMGET', base .. '#s', 'hold', 'quick')
    local hold, quick = tonumber(known[1] or held), tonumber(known[2] or held)
    local excess = held - quick
    quick = excess < 0 and held or quick + excess * SLOWLY
    redis.call('HSET', base .. '#s', 'hold', math.floor(hold * 0.8 + held * 0.2), 'quick', math.floor(quick))
    if excess > NOTICED then
      for rate in string.gmatch(ARGV[3 + p], '%d+') do count_from(base .. '#r' .. rate, ARGV[3], tonumber(ARGV[3]) + excess) end
    end
  end
  redis.call('ZREM', base .. '#q', ARGV[1])
  redis.call('ZREM', base .. '#w', ARGV[1])
end
return 1
"""
)

# KEYS: pool base   ARGV: pause. Calls already under way when the pause began are part of the same offence: they prolong it.
PENALISE = Script(
    _CONSTANTS
    + """
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local s = redis.call('HMGET', KEYS[1] .. '#s', 'pause', 'factor', 'factor_at')
local pause, over = tonumber(s[1] or 0), now + tonumber(ARGV[1])
if now >= pause then
  local factor = s[2] and math.min(1, tonumber(s[2]) + (now - tonumber(s[3])) / RESTORE) or 1
  redis.call('HSET', KEYS[1] .. '#s', 'factor', tostring(math.max(FLOOR, factor * CUT)), 'factor_at', now)
end
if over > pause then redis.call('HSET', KEYS[1] .. '#s', 'pause', over) end
redis.call('EXPIRE', KEYS[1] .. '#s', 259200)
return 1
"""
)

# KEYS: contact   -> now, then per pool that was ever used: base, in flight, waiting, factor, pause, hold, day, used
LOOK = Script(
    _CONSTANTS
    + """
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local seen = {now}
for _, base in ipairs(redis.call('SMEMBERS', KEYS[1] .. ':pools')) do
  local s = redis.call('HMGET', base .. '#s', 'factor', 'factor_at', 'pause', 'hold', 'day', 'used')
  local factor = s[1] and math.min(1, tonumber(s[1]) + (now - tonumber(s[2])) / RESTORE) or 1
  for _, v in ipairs({base, redis.call('ZCOUNT', base .. '#h', now, '+inf'), redis.call('ZCOUNT', base .. '#w', now, '+inf'),
    tostring(factor), s[3] or 0, s[4] or 0, s[5] or 0, s[6] or 0}) do seen[#seen + 1] = v end
end
return seen
"""
)
