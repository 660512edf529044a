-- Gives back claims of Python workers. One that has another score by now is left:
-- somebody else gave it back meanwhile, and it was claimed again, under the same tag.
-- So is one that had no message when it was read, and has one now.
-- KEYS: unacked, unacked_index. ARGV: prefix of lists, then for each claim: its tag,
-- its score, the number of queues, and for each its list and the message.
local i = 2
while i <= #ARGV do
  local tag, score, n = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  i = i + 3
  local back = redis.call('ZSCORE', KEYS[2], tag) == score and (n > 0 or redis.call('HEXISTS', KEYS[1], tag) == 0)
  if back then
    redis.call('ZREM', KEYS[2], tag)
    back = redis.call('HDEL', KEYS[1], tag) == 1
  end
  for j = i, i + 2 * n - 2, 2 do
    if back then redis.call('RPUSH', ARGV[1] .. ARGV[j], ARGV[j + 1]) end
  end
  i = i + 2 * n
end
return 1
