-- Counts a lost worker of a task. KEYS: the count. ARGV: what was known, ms.
-- Returns the count, one more than was known or what it was if that is more.
local n = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), ARGV[1] + 1)
redis.call('SET', KEYS[1], string.format('%d', n), 'PX', ARGV[2])
return n
