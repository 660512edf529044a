-- Renews a consumer's lease and re-scores its claims.
-- KEYS: unacked, unacked_index, workers, then the consumers of each of its queues.
-- ARGV: identity, lease ms, consumer, fields.
-- Returns the numbers, from 0, of the fields whose claim has ended, or -1 if
-- the consumer has been taken for dead.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local score = string.format('%d.%06d', time[1], time[2])
-- A server without memory refuses a script whose first write adds something.
redis.call('ZREM', KEYS[3], '')
for i = 4, #KEYS do redis.call('ZADD', KEYS[i], now + tonumber(ARGV[2]), ARGV[3]) end
local lapse = redis.call('ZSCORE', KEYS[3], ARGV[1])
if not lapse or lapse == '0' then return -1 end
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[2]), ARGV[1])
local lost = {}
for i = 4, #ARGV do
  if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
    redis.call('ZADD', KEYS[2], score, ARGV[i])
  else
    lost[#lost + 1] = i - 4
  end
end
return lost
