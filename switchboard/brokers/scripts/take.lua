-- ARGV: the number of this taking, lease in ms.  Asked for a second time by the same number, because the reply was lost, it gives the same.

-- A write that changes nothing and needs no memory: after it, Redis runs the rest of the script even above its maxmemory.
redis.call('ZREM', leases, '')

local list, message
local had = redis.call('HGET', held, ARGV[1])
if had then
  list, message = string.sub(had, 1, 1), string.sub(had, 2)
else
  for _, late in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, 100)) do
    redis.call('ZREM', delayed, late)
    redis.call('LPUSH', list_of(late), string.sub(late, 2))
  end
  list = #lists
  while list > 0 and not message do
    message = redis.call('RPOP', lists[list])
    if not message then list = list - 1 end
  end
  if not message then return false end
  redis.call('HSET', held, ARGV[1], list .. message)
end
local sum = redis.sha1hex(message)
local tag = list .. ':' .. sum .. ':' .. ARGV[1]
redis.call('ZADD', leases, now + ARGV[2], tag)
return {tag, message, tonumber(redis.call('HGET', deaths, sum) or 0)}
