-- ARGV: tag, channel, 1 if its holder has given up.

local had = redis.call('HGET', held, string.sub(ARGV[1], 44))
if not had then return 0 end
redis.call('HDEL', held, string.sub(ARGV[1], 44))
redis.call('ZREM', leases, ARGV[1])
redis.call('RPUSH', list_of(had), string.sub(had, 2))
if ARGV[3] == '1' then redis.call('HINCRBY', deaths, string.sub(ARGV[1], 3, 42), 1) end
redis.call('PUBLISH', ARGV[2], '1')
return 1
