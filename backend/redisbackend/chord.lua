-- Counts a part of a chord, which takes the place of one of the same task.
-- KEYS: end, parts, added, size. ARGV: part, what the parts of this task begin
-- with, score or '' for a list, ms to live or 0, whether to look everywhere.
-- Returns parts, size, ended.
local call = redis.call
local part, prefix, score, ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if call('EXISTS', KEYS[1]) == 1 then return {0, 0, 1} end
local function same(list, remove)
  for _, v in ipairs(list) do
    if string.sub(v, 1, #prefix) == prefix and v ~= part then remove(v) end
  end
end
local count
if score == '' then
  local have = false
  if ARGV[5] == '1' then
    local list = call('LRANGE', KEYS[2], 0, -1)
    for i, v in ipairs(list) do
      if string.sub(v, 1, #prefix) == prefix then
        call('LSET', KEYS[2], i - 1, part)
        have = true
        break
      end
    end
  end
  if not have then call('RPUSH', KEYS[2], part) end
  count = call('LLEN', KEYS[2])
else
  if score ~= '+inf' or ARGV[5] == '1' then
    same(call('ZRANGEBYSCORE', KEYS[2], score, score), function(v) call('ZREM', KEYS[2], v) end)
  end
  call('ZADD', KEYS[2], score, part)
  count = call('ZCARD', KEYS[2])
end
if ms ~= '0' then
  for i = 2, 4 do call('PEXPIRE', KEYS[i], ms) end
end
local size = tonumber(call('GET', KEYS[4]) or '0')
if size > 0 then size = size + tonumber(call('GET', KEYS[3]) or '0') end
return {count, size, 0}
