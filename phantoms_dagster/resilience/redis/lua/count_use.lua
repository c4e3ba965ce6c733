-- KEYS: logs of grants, newest first   ARGV: the window of each, in microseconds   -> the calls granted within each window.
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local used = {}
for i, log in ipairs(KEYS) do
  local from, low, high = now - tonumber(ARGV[i]), 0, redis.call('LLEN', log)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if tonumber(redis.call('LINDEX', log, middle)) > from then low = middle + 1 else high = middle end
  end
  used[i] = low
end
return used
