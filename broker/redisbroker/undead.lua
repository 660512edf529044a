-- Takes one dead letter away and, if asked, puts it back into its queue.
-- KEYS: dead, dead index, dead index of the queue, list to push to or none.
-- ARGV: id, raw. Returns 1 or 0.
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
if KEYS[4] then redis.call('LPUSH', KEYS[4], ARGV[2]) end
return 1
