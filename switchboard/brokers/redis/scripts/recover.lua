-- ARGV: channel, lease in ms.

begin()
look(tonumber(ARGV[2]))
local found = {}
for _, tag in ipairs(redis.call('ZREVRANGEBYSCORE', leases, now, '-inf', 'LIMIT', 0, 100)) do
  local had = redis.call('HGET', held, string.sub(tag, 44))
  if had then
    local message = string.sub(had, 2)
    redis.call('RPUSH', list_of(had), message)
    redis.call('HDEL', held, string.sub(tag, 44))
    redis.call('ZREM', leases, tag)
    found[#found + 1] = {message, redis.call('HINCRBY', deaths, string.sub(tag, 3, 42), 1)}
  else
    redis.call('ZREM', leases, tag)
  end
end
if #found > 0 then wake(ARGV[1]) end
return found
