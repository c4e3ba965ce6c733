-- KEYS: pool base   ARGV: pause. Lowers the pool's limits once per pause: a 429 during a pause only extends the pause, because
-- that call was already under way when the pause began.
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
