-- ARGV: tag, channel, 1 if its holder has given up.

begin()
local had = redis.call('HGET', held, string.sub(ARGV[1], 44))
if not had then return 0 end
redis.call('RPUSH', list_of(had), string.sub(had, 2))
redis.call('HDEL', held, string.sub(ARGV[1], 44))
redis.call('ZREM', leases, ARGV[1])
if ARGV[3] == '1' then redis.call('HINCRBY', deaths, string.sub(ARGV[1], 3, 42), 1) end
wake(ARGV[2])
return 1
