-- ARGV: list, message, delay in ms.

redis.call('ZADD', delayed, now + ARGV[3], ARGV[1] .. ARGV[2])
return 1
