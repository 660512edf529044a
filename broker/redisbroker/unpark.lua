-- Gives parked messages that carry their ETA back as plain ones, to be held by
-- whoever claims them, if no Go consumer of the queue is left or it is forced.
-- KEYS: parked, parked raw, consumers, the lists. ARGV: prefix of lists, most,
-- consumer that leaves, force?, what is there if there are Python workers or ''.
-- Returns how many.
local now = redis.call('TIME')
redis.call('ZREM', KEYS[3], ARGV[3])
if ARGV[4] ~= '1' then
  if redis.call('ZCOUNT', KEYS[3], now[1] * 1000, '+inf') > 0 then return 0 end
  if ARGV[5] == '' or redis.call('EXISTS', ARGV[5]) == 0 then return 0 end
end
local ids, n = redis.call('ZRANGE', KEYS[1], 0, ARGV[2] - 1), 0
for _, id in ipairs(ids) do
  local raw = redis.call('HGET', KEYS[2], id)
  if raw and string.find(raw, '"eta": "', 1, true) then
    redis.call('LPUSH', ARGV[1] .. string.match(id, ':(.*)$'), raw)
    redis.call('ZREM', KEYS[1], id)
    redis.call('HDEL', KEYS[2], id)
    n = n + 1
  end
end
return n
