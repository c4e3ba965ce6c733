-- KEYS: pool bases...   ARGV: id, when it was granted (0: it only waited), its send time, then per pool the numbers of its rates
-- with a short window ('1,3'; '' if none). Gives back slots and places in the queue.
-- A call that took longer than quick calls do may have reached the provider that much later than its send time. The log of a short
-- window then counts it at the later time. Otherwise calls held up by a stalled provider or a busy machine would be followed at once
-- by as many new ones.
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
