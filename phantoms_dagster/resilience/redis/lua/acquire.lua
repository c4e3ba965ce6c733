-- KEYS: contact, breakers..., pool bases...
-- ARGV: id, ticket ('0': none yet), max_wait, known epoch, lost, cost, the missed send time ('0': none; else a new one is
--       assigned), number of breakers, per breaker '1' if this call is its probe, then per pool: slots (-1: no limit), lease,
--       number of rates, (calls, window, burst) each, quota (-1: none) and, with a quota, the current day and its use as the caller
--       knows them, the number of midnights and the midnights.
-- -> {1, token, now, epoch, then per pool day and used, and last the time to send at}   granted
--    {0, wait, ticket, epoch, pool (from 1), kind, now}   wait; pool 0: Redis is recovering
--    {2, now}                                             Redis' time is not between the given midnights
--    {3, wait, breaker (from 1)}                          this breaker is open
local a = 0
local function text() a = a + 1 return ARGV[a] end
local function number() a = a + 1 return tonumber(ARGV[a]) end
local id, ticket, max_wait = text(), number(), number()
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
-- The send time of this call: at most AHEAD from now.
local at = now

-- One pool's wait. `ahead` counts its older waiters: the capacity that they will take is not available.
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
      -- The next in the queue asks ten times per expected release, the others when it may be their turn.
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
    -- A call keeps a place only in pools that stop it, so that others do not wait for capacity that it cannot use. It keeps one only
    -- if it is willing to wait, and until two seconds after the wait that it was given.
    if wait <= max_wait and (waits[p] > 0 or recovering) then
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
  -- A call that asks again because the answer was lost has already paid.
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
