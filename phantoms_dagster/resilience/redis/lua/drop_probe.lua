-- ARGV: name, probe, '1' if it was sent, reset   Gives up a probe that decided nothing. After one that was sent, the next waits.
if redis.call('GET', key .. '#probe') == ARGV[2] then
  if ARGV[3] == '1' then redis.call('PEXPIRE', key .. '#probe', math.ceil(ARGV[4] / 1000))
  else redis.call('DEL', key .. '#probe') end
end
return 1
