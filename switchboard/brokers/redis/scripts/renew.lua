-- ARGV: lease in ms, tags.

begin()
look(tonumber(ARGV[1]))
-- Returns when the keys came to be, and the tags that were not renewed: their lease was over and somebody else has the message, or Redis has lost them.
local lost = {born()}
for i = 2, #ARGV do
  if redis.call('ZSCORE', leases, ARGV[i]) then
    redis.call('ZADD', leases, 'XX', now + ARGV[1], ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
