-- ARGV: tag, list and message, lease in ms.  What Redis has lost it has again, from its holder.

begin()
redis.call('ZADD', leases, now + ARGV[3], ARGV[1])
redis.call('HSET', held, string.sub(ARGV[1], 44), ARGV[2])
return 1
