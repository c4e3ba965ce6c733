-- ARGV: name, successes, failures, window   -> look. Adds to the counts of this window. With zeroes it only reads.
local successes, failures, window = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local bucket = string.format('%.0f', math.floor(now / (window / 10)))
if successes + failures > 0 then
  if successes > 0 then redis.call('HINCRBY', key .. '#window', 's' .. bucket, successes) end
  if failures > 0 then redis.call('HINCRBY', key .. '#window', 'f' .. bucket, failures) end
  redis.call('PEXPIRE', key .. '#window', math.ceil(window / 500))
  -- Successes reported together with a failure came before it.
  if successes > 0 then redis.call('SET', key .. '#streak', failures) else redis.call('INCRBY', key .. '#streak', failures) end
  redis.call('PEXPIRE', key .. '#streak', math.ceil(window / 1000))
  known()
end
return look(window)
