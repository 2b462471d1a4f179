"""What is done inside Redis, where a script is one step.

kombu takes a message out of its list and then notes that it has it, so a crash in between loses it.  Here both are one script.  The lists are
kombu's own (``QUEUE`` and, by priority, ``QUEUE\\x06\\x163 ...6 ...9``), so its programs and ours read and write the same queue.  What is ours:

``switchboard:QUEUE:held``
    a hash: the messages that somebody has, by tag.  A tag is the list's number, the SHA-1 of the message and a number of this taking.
``switchboard:QUEUE:leases``
    a sorted set: until when each is its holder's, in milliseconds.  A holder that lives renews it.
``switchboard:QUEUE:deaths``
    a hash: how often a lease ran out, by SHA-1.
``switchboard:QUEUE:delayed``
    a sorted set: messages that wait, each behind the number of its list, by the time they are due.
``switchboard:QUEUE:wake``
    a channel: something has come.

Times are those of the server, so that the clocks of its clients do not matter.
"""

from __future__ import annotations

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# KEYS: lists, lowest priority first, ..., then held, leases, deaths, delayed.  ARGV: this taking, lease in ms, channel.
_NAMES = """
local lists = #KEYS - 4
local held, leases, deaths, delayed = KEYS[lists + 1], KEYS[lists + 2], KEYS[lists + 3], KEYS[lists + 4]
"""

TAKE = (
    _NOW
    + _NAMES
    + """
for _, late in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, 100)) do
  redis.call('LPUSH', KEYS[tonumber(string.sub(late, 1, 1))], string.sub(late, 2))
  redis.call('ZREM', delayed, late)
end
for list = lists, 1, -1 do
  local message = redis.call('RPOP', KEYS[list])
  if message then
    local sum = redis.sha1hex(message)
    local tag = list .. ':' .. sum .. ':' .. ARGV[1]
    redis.call('HSET', held, tag, message)
    redis.call('ZADD', leases, now + ARGV[2], tag)
    return {tag, message, tonumber(redis.call('HGET', deaths, sum) or 0)}
  end
end
return false
"""
)

# ARGV: tag.
END = (
    _NAMES
    + """
if redis.call('HDEL', held, ARGV[1]) == 0 then return 0 end
redis.call('ZREM', leases, ARGV[1])
redis.call('HDEL', deaths, string.sub(ARGV[1], 3, 42))
return 1
"""
)

# ARGV: tag, channel, 1 if its holder has given up.
REQUEUE = (
    _NAMES
    + """
local message = redis.call('HGET', held, ARGV[1])
if not message then return 0 end
redis.call('RPUSH', KEYS[tonumber(string.sub(ARGV[1], 1, 1))], message)
redis.call('HDEL', held, ARGV[1])
redis.call('ZREM', leases, ARGV[1])
if ARGV[3] == '1' then redis.call('HINCRBY', deaths, string.sub(ARGV[1], 3, 42), 1) end
redis.call('PUBLISH', ARGV[2], '1')
return 1
"""
)

# ARGV: channel.
RESTORE = (
    _NOW
    + _NAMES
    + """
local found = {}
for _, tag in ipairs(redis.call('ZREVRANGEBYSCORE', leases, now, '-inf', 'LIMIT', 0, 100)) do
  local message = redis.call('HGET', held, tag)
  redis.call('HDEL', held, tag)
  redis.call('ZREM', leases, tag)
  if message then
    redis.call('RPUSH', KEYS[tonumber(string.sub(tag, 1, 1))], message)
    found[#found + 1] = {message, redis.call('HINCRBY', deaths, string.sub(tag, 3, 42), 1)}
  end
end
if #found > 0 then redis.call('PUBLISH', ARGV[1], '1') end
return found
"""
)

# ARGV: lease in ms, tags.
RENEW = (
    _NOW
    + _NAMES
    + """
for i = 2, #ARGV do redis.call('ZADD', leases, 'XX', now + ARGV[1], ARGV[i]) end
return #ARGV - 1
"""
)

# ARGV: list, message, how many there may be or '', channel.
PUT = """
if ARGV[3] ~= '' then
  local waiting = 0
  for i = 1, #KEYS do waiting = waiting + redis.call('LLEN', KEYS[i]) end
  if waiting >= tonumber(ARGV[3]) then return 0 end
end
redis.call('LPUSH', KEYS[tonumber(ARGV[1])], ARGV[2])
redis.call('PUBLISH', ARGV[4], '1')
return 1
"""

# KEYS: delayed.  ARGV: list, message, delay in ms.
DELAY = (
    _NOW
    + """
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1] .. ARGV[2])
return 1
"""
)

# KEYS: delayed.  When the first is due, in ms from now; -1 if none is.
NEXT_DUE = (
    _NOW
    + """
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if #first == 0 then return -1 end
return math.max(0, first[2] - now)
"""
)
