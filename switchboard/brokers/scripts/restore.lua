-- ARGV: channel.

local found = {}
for _, tag in ipairs(redis.call('ZREVRANGEBYSCORE', leases, now, '-inf', 'LIMIT', 0, 100)) do
  redis.call('ZREM', leases, tag)
  local had = redis.call('HGET', held, string.sub(tag, 44))
  if had then
    local message = string.sub(had, 2)
    redis.call('HDEL', held, string.sub(tag, 44))
    redis.call('RPUSH', list_of(had), message)
    found[#found + 1] = {message, redis.call('HINCRBY', deaths, string.sub(tag, 3, 42), 1)}
  end
end
if #found > 0 then redis.call('PUBLISH', ARGV[1], '1') end
return found
