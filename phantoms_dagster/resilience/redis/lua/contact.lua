-- contact(key, known, lost) -> epoch, time of the last loss. An epoch identifies one lifetime of Redis' memory. A client starts a
-- recovery when it knows another epoch (FLUSHALL, or a restart without data) or when it lost contact (a restart with data: leases
-- may have run out meanwhile). A client that knows no epoch starts none on an empty Redis: that is a first start.
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
