-- ARGV: list, message, how many there may be or '', channel.

if ARGV[3] ~= '' then
  local waiting = 0
  for _, name in ipairs(lists) do waiting = waiting + redis.call('LLEN', name) end
  if waiting >= tonumber(ARGV[3]) then return 0 end
end
redis.call('LPUSH', lists[tonumber(ARGV[1])], ARGV[2])
wake(ARGV[4])
return 1
