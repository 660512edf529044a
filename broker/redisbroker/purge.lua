-- Deletes what waits in a queue. KEYS: parked, parked raw, lists.
local n = redis.call('ZCARD', KEYS[1])
for i = 3, #KEYS do n = n + redis.call('LLEN', KEYS[i]) end
redis.call('UNLINK', unpack(KEYS))
return n
