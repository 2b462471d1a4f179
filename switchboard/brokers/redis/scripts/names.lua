-- Stands before each script: its keys by name, and the time of the server in milliseconds.
-- KEYS: held, leases, deaths, delayed, then the lists, lowest priority first.
local held, leases, deaths, delayed = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local lists = {}
for i = 5, #KEYS do lists[i - 4] = KEYS[i] end
local function list_of(text) return lists[tonumber(string.sub(text, 1, 1))] end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Writes that change nothing and need no memory: after the first, Redis runs the rest of a script even above its maxmemory.  And what is to be
-- taken away by these commands later is not put elsewhere before, if this user may not call them, or a key is of a wrong type.
local function begin()
  redis.call('ZREM', leases, '')
  redis.call('HDEL', held, '')
end
-- Who waits is woken; where this user may not publish, he looks by himself.
local function wake(channel) redis.pcall('PUBLISH', channel, '1') end

-- Time in which nobody could renew a lease, because the server was away or its clock was turned, ends none that ran before.  Once: half a millisecond
-- marks a lease that was not renewed since, or those who look seldom would keep a dead holder's for ever.
local function look(lease)
  local last = tonumber(redis.call('HGET', deaths, 'looked') or now)
  if now < last or now > last + lease / 2 then
    local all = redis.call('ZRANGE', leases, 0, -1, 'WITHSCORES')
    for i = 1, #all, 2 do
      local ends = tonumber(all[i + 1])
      if (now < last and ends > now + lease) or (now > last and ends >= last and ends < now + lease and ends % 1 == 0) then
        redis.call('ZADD', leases, 'XX', now + lease + 0.5, all[i])
      end
    end
  end
  redis.call('HSET', deaths, 'looked', now)
end

-- When the keys of a queue came to be.  Another time says that Redis has lost them, and the leases with them.
local function born()
  local found = redis.call('HGET', deaths, 'born')
  if not found then
    found = time[1] .. '.' .. time[2]
    redis.call('HSET', deaths, 'born', found)
  end
  return found
end

