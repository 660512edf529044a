-- Lists the claims without a sign of life for longer than the visibility timeout.
-- KEYS: unacked_index. ARGV: seconds, most.
local time = redis.call('TIME')
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%d', time[1] - ARGV[1]), 'LIMIT', 0, ARGV[2])
