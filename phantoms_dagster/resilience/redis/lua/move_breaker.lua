-- ARGV: name, to, probe, reset, window   -> look. Any process may move closed -> open. Only the holder of the probe may leave half-open.
local to, probe = ARGV[2], ARGV[3]
if state == 'closed' and to == 'open' then go('open', tonumber(ARGV[4]), 'too many failures', '0')
elseif state == 'half-open' and probe ~= '' and redis.call('GET', key .. '#probe') == probe then
  if to == 'open' then go('open', tonumber(ARGV[4]), 'probe failed', '0')
  elseif to == 'closed' then go('closed', 0, 'probe answered', '0') end
end
return look(tonumber(ARGV[5]))
