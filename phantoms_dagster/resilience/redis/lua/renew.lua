-- KEYS: contact, pool bases...   ARGV: id, known epoch, lost, then the lease of each pool (without pools: only report the epoch)
-- -> {1 if every slot is held now, epoch}. A lease that ran out is not renewed, except while Redis is recovering.
local epoch, lost_at = contact(KEYS[1], ARGV[2], ARGV[3])
local held = 1
for p = 2, #KEYS do
  local until_ = redis.call('ZSCORE', KEYS[p] .. '#h', ARGV[1])
  if (until_ and tonumber(until_) > now) or now < lost_at + RECOVERY then
    redis.call('ZADD', KEYS[p] .. '#h', now + tonumber(ARGV[2 + p]), ARGV[1])
  else
    held = 0
  end
end
return {held, epoch}
