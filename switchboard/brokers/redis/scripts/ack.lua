-- ARGV: tag.

if redis.call('HDEL', held, string.sub(ARGV[1], 44)) == 0 then return 0 end
redis.call('ZREM', leases, ARGV[1])
redis.call('HDEL', deaths, string.sub(ARGV[1], 3, 42))
return 1
