-- ARGV: lease in ms, tags.

-- A write that changes nothing and needs no memory: after it, Redis runs the rest of the script even above its maxmemory.
redis.call('ZREM', leases, '')

-- Returns those that were not renewed, because their lease was over and somebody else has the message.
local lost = {}
for i = 2, #ARGV do
  if redis.call('ZSCORE', leases, ARGV[i]) then
    redis.call('ZADD', leases, 'XX', now + ARGV[1], ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
