-- Stands before each script: its keys by name, and the time of the server in milliseconds.
-- KEYS: held, leases, deaths, delayed, then the lists, lowest priority first.
local held, leases, deaths, delayed = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local lists = {}
for i = 5, #KEYS do lists[i - 4] = KEYS[i] end
local function list_of(text) return lists[tonumber(string.sub(text, 1, 1))] end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

