-- The common beginning of all breaker scripts.
-- KEYS: the breaker, the set of all breakers' names   ARGV: name, then the arguments of the script.
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local key, name = KEYS[1], ARGV[1]
local s = redis.call('HMGET', key, 'state', 'since', 'until', 'manual')
local state, since, until_, manual = s[1] or 'closed', s[2] or '', tonumber(s[3] or 0), s[4] or '0'
local function known() redis.call('SADD', KEYS[2], name) end
local function go(to, hold, why, by_hand)
  redis.call('LPUSH', key .. '#log', cjson.encode({string.format('%.0f', now), state, to, why}))
  redis.call('LTRIM', key .. '#log', 0, KEPT - 1)
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
  return {state, since == '' and -1 or now - tonumber(since), math.max(wait, 0), manual, calls, failures, streak}
end
