-- ARGV: lease in ms, tags.

begin()
look(tonumber(ARGV[1]))
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
