-- Declares a consumer dead for good if its lease has run out.
-- KEYS: workers. ARGV: consumer, force?. Returns 1 if it is dead.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lapse = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '')
if not lapse or (lapse > now and ARGV[2] ~= '1') then return 0 end
redis.call('ZADD', KEYS[1], 0, ARGV[1])
return 1
