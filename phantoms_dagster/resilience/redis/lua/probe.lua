-- ARGV: name, probe, lease, window   -> {1 if the probe is ours, look...}. An open breaker becomes half-open once its reset time is over.
local got = 0
local holder = redis.call('GET', key .. '#probe')
if holder == ARGV[2] then got = 1
elseif not holder and (state == 'half-open' or (state == 'open' and now >= until_)) then
  if state == 'open' then go('half-open', 0, 'probe sent', '0') end
  redis.call('SET', key .. '#probe', ARGV[2], 'PX', math.ceil(ARGV[3] / 1000))
  got = 1
end
return {got, unpack(look(tonumber(ARGV[4])))}
