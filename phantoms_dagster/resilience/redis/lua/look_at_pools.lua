-- KEYS: contact   -> now, then for each pool that was ever used: base, in flight, waiting, factor, pause, hold, day, used
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
