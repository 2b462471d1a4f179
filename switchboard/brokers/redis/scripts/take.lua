-- ARGV: the number of this taking, lease in ms.  Asked for a second time by the same number, because the reply was lost, it gives the same.

begin()
local list, message
local had = redis.call('HGET', held, ARGV[1])
if had then
  list, message = string.sub(had, 1, 1), string.sub(had, 2)
else
  redis.call('ZREM', delayed, '')
  for _, late in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, 100)) do
    redis.call('LPUSH', list_of(late), string.sub(late, 2))
    redis.call('ZREM', delayed, late)
  end
  list = #lists
  while list > 0 and not message do
    message = redis.call('LINDEX', lists[list], -1)
    if not message then list = list - 1 end
  end
  if not message then return false end
end
local sum = redis.sha1hex(message)
local tag = list .. ':' .. sum .. ':' .. ARGV[1]
local died = tonumber(redis.call('HGET', deaths, sum) or 0)
redis.call('ZADD', leases, now + ARGV[2], tag)
if not had then
  redis.call('LTRIM', lists[list], 0, -1) -- as `begin`
  redis.call('HSET', held, ARGV[1], list .. message)
  redis.call('LTRIM', lists[list], 0, -2)
end
return {tag, message, died, born()}
