"""What is done inside Redis, where a script is one step.

kombu takes a message out of its list and then notes that it has it, so a crash in between loses it.  Here both are one script.  The lists are
kombu's own (``QUEUE`` and, by priority, ``QUEUE\\x06\\x163 ...6 ...9``), so its programs and ours read and write the same queue.  What is ours:

``switchboard:QUEUE:held``
    a hash: the messages that somebody has, each behind the number of its list, by the number of this taking.
``switchboard:QUEUE:leases``
    a sorted set: until when each is its holder's, in milliseconds, by tag.  A holder that lives renews it.  A tag is the list's number, the
    SHA-1 of the message and the number of this taking.
``switchboard:QUEUE:deaths``
    a hash: how often a lease ran out, by SHA-1.
``switchboard:QUEUE:delayed``
    a sorted set: messages that wait, each behind the number of its list, by the time they are due.
``switchboard:QUEUE:wake``
    a channel: something has come.

Times are those of the server, so that the clocks of its clients do not matter.

Where Redis has used up its ``maxmemory``, it stops a script at its first write if that is one that may need memory; if the first is one
that never does (``HDEL``, ``ZREM``, ``RPOP``), the script is done to its end.  What ends, renews or gives back a message must go on there,
or a full Redis would take messages from those who work on them, and could not be emptied: so these scripts begin with such a write.
Rejected: the flag ``allow-oom``, because it is Redis 7's.
"""

from __future__ import annotations

PARTS = ('held', 'leases', 'deaths', 'delayed')


def key_of(queue: str, part: str) -> str:
    """:return: the name of what is ours of a queue."""
    return f'switchboard:{queue}:{part}'


_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# KEYS: lists, lowest priority first, ..., then those of `PARTS`.
_NAMES = """
local lists = #KEYS - 4
local held, leases, deaths, delayed = KEYS[lists + 1], KEYS[lists + 2], KEYS[lists + 3], KEYS[lists + 4]
local function list_of(text) return KEYS[tonumber(string.sub(text, 1, 1))] end
"""

# A write that changes nothing and needs no memory: from here on, what needs some is done in a full Redis too.
_GO_ON_WHEN_FULL = """
redis.call('ZREM', leases, '')
"""

# ARGV: the number of this taking, lease in ms.  Asked for a second time by the same number, because the reply was lost, it gives the same.
TAKE = (
    _NOW
    + _NAMES
    + _GO_ON_WHEN_FULL
    + """
local list, message
local had = redis.call('HGET', held, ARGV[1])
if had then
  list, message = string.sub(had, 1, 1), string.sub(had, 2)
else
  for _, late in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, 100)) do
    redis.call('ZREM', delayed, late)
    redis.call('LPUSH', list_of(late), string.sub(late, 2))
  end
  list = lists
  while list > 0 and not message do
    message = redis.call('RPOP', KEYS[list])
    if not message then list = list - 1 end
  end
  if not message then return false end
  redis.call('HSET', held, ARGV[1], list .. message)
end
local sum = redis.sha1hex(message)
local tag = list .. ':' .. sum .. ':' .. ARGV[1]
redis.call('ZADD', leases, now + ARGV[2], tag)
return {tag, message, tonumber(redis.call('HGET', deaths, sum) or 0)}
"""
)

# ARGV: tag.
END = (
    _NAMES
    + """
if redis.call('HDEL', held, string.sub(ARGV[1], 44)) == 0 then return 0 end
redis.call('ZREM', leases, ARGV[1])
redis.call('HDEL', deaths, string.sub(ARGV[1], 3, 42))
return 1
"""
)

# ARGV: tag, channel, 1 if its holder has given up.
REQUEUE = (
    _NAMES
    + """
local had = redis.call('HGET', held, string.sub(ARGV[1], 44))
if not had then return 0 end
redis.call('HDEL', held, string.sub(ARGV[1], 44))
redis.call('ZREM', leases, ARGV[1])
redis.call('RPUSH', list_of(had), string.sub(had, 2))
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
"""
)

# ARGV: lease in ms, tags.
RENEW = (
    _NOW
    + _NAMES
    + _GO_ON_WHEN_FULL
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
