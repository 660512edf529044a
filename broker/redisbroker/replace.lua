-- Replaces the record of a claim, if it is still held.
-- KEYS: unacked. ARGV: field, record. Returns 1 or 0.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
