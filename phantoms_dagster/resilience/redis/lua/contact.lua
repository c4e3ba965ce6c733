-- contact(key, known, lost) -> epoch, time of the last loss. The epoch names one life of Redis' memory. Whoever knew another
-- one (FLUSHALL, a restart without its data) or lost contact (a restart with them: leases may have run out meanwhile) begins
-- a recovery. A client that knew none, on an empty Redis, does not: that is a first start.
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
