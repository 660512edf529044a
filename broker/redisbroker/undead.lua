-- Takes one dead letter away and, if asked, puts it back into its queue.
-- KEYS: dead, dead index, dead index of the queue. ARGV: id, list to push to or
-- '', raw. Returns 1 or 0.
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
if ARGV[2] ~= '' then redis.call('LPUSH', ARGV[2], ARGV[3]) end
return 1
