-- Claims up to a number of messages. Everything that a claim must know to be
-- given back is in its field, and the record is joined from raw text.
-- KEYS: unacked, unacked_index, workers, paused, dead, dead id, dead index;
--       for each queue: parked, parked raw, dead index, consumers, its lists by
--       step
-- ARGV: identity, last number, limit, lease ms, registered?, look after things?,
--       most bytes, queues, steps, prefix, consumer, spread?; for each queue:
--       name, then for each step: list name, record tail
-- Returns {last number, ms until something happens or -1, buried, lapsed
-- consumers, {list, how many from it, ...}, raw, raw, ...}, or {-1} if the consumer
-- has lapsed. The claims have the numbers up to the last one.
local KEYS, ARGV, call = KEYS, ARGV, redis.call
local unacked, index, workers = KEYS[1], KEYS[2], KEYS[3]
local me, n, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local most, queues, steps, prefix = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10]
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local score = string.format('%d.%06d', time[1], time[2])

if ARGV[5] == '1' then
  local lapse = call('ZSCORE', workers, me)
  if not lapse or lapse == '0' then return {-1} end
end

-- What is no JSON object would stop each of Python's sweeps. An envelope as kombu
-- and we write it is known by its two ends, because decoding costs more than all
-- the rest; whatever else there may be is decoded. (Control characters or bad
-- UTF-8 in its strings are left to the reader, which puts such a message aside
-- long before a sweep.)
local function readable(raw)
  if string.sub(raw, 1, 10) == '{"body": "' and string.sub(raw, -3) == '"}}' then return true end
  return string.find(raw, '^%s*{') and (pcall(cjson.decode, raw))
end

local paused = call('EXISTS', KEYS[4]) == 1
local got, bytes, buried = 0, 0, 0
local from = {}
local out, outs = {n, -1, 0, {}, from}, 5
local records, scores, held = {}, {}, 0 -- twice as many as messages

local function flush()
  if held > 0 then
    call('HSET', unacked, unpack(records, 1, held))
    call('ZADD', index, unpack(scores, 1, held))
    held = 0
  end
end

local function bury(queue, deadof, raw)
  local id = call('INCR', KEYS[6])
  if ARGV[12] == '1' and id < now * 1000 then -- see apply.lua
    id = string.format('%d', now * 1000)
    call('SET', KEYS[6], id)
  end
  local head = cjson.encode({queue = queue, list = queue, at = now, reason = 'the message is no JSON object'})
  call('HSET', KEYS[5], id, head .. '\n' .. raw)
  call('ZADD', KEYS[7], id, id)
  call('ZADD', deadof, id, id)
  buried = buried + 1
end

local open, next_due = {}, nil
for q = 1, queues do
  local k, a = 7 + (q - 1) * (4 + steps), 12 + (q - 1) * (1 + 2 * steps)
  if ARGV[6] == '1' then -- that there is a Go consumer: see apply.lua
    call('ZREMRANGEBYSCORE', KEYS[k + 4], '-inf', now)
    call('ZADD', KEYS[k + 4], now + tonumber(ARGV[4]), ARGV[11])
  end
  open[q] = not (paused and call('SISMEMBER', KEYS[4], ARGV[a + 1]) == 1)
  if open[q] then
    local due = call('ZRANGEBYSCORE', KEYS[k + 1], '-inf', now, 'LIMIT', 0, 200)
    if #due > 0 then
      for i = #due, 1, -1 do
        local raw = call('HGET', KEYS[k + 2], due[i])
        if raw then call('RPUSH', prefix .. string.match(due[i], ':(.*)$'), raw) end
      end
      call('ZREM', KEYS[k + 1], unpack(due))
      call('HDEL', KEYS[k + 2], unpack(due))
    end
  end
end

for s = 1, steps do
  for q = 1, queues do
    if open[q] and got < limit and bytes < most then
      local k, a = 7 + (q - 1) * (4 + steps), 12 + (q - 1) * (1 + 2 * steps)
      local key, list, tail = KEYS[k + 4 + s], ARGV[a + 2 * s], ARGV[a + 2 * s + 1]
      local before, after = 'lv1:' .. me .. ':', ':' .. list
      local more, first = true, got
      while more and got < limit and bytes < most do
        local want = math.min(limit - got, 64)
        local items = call('LRANGE', key, -want, -1)
        more = #items == want
        local took = 0
        for i = #items, 1, -1 do
          local raw = items[i]
          if bytes < most then
            took = took + 1
            if readable(raw) then
              got, n, bytes = got + 1, n + 1, bytes + #raw
              local field = before .. n .. after
              records[held + 1], records[held + 2] = field, '[' .. raw .. tail
              scores[held + 1], scores[held + 2] = score, field
              out[outs + 1] = raw
              held, outs = held + 2, outs + 1
            else
              bury(ARGV[a + 1], KEYS[k + 3], raw)
            end
          end
        end
        if took > 0 then call('LTRIM', key, 0, -took - 1) end
        if held > 1000 then flush() end
      end
      if got > first then from[#from + 1], from[#from + 2] = list, got - first end
    end
  end
end
flush()

if got > 0 then
  call('ZADD', workers, now + tonumber(ARGV[4]), me)
else
  local wait = -1
  local function at(t) if t and (wait < 0 or t - now < wait) then wait = math.max(t - now, 0) end end
  for q = 1, queues do
    if open[q] then
      local first = call('ZRANGE', KEYS[7 + (q - 1) * (4 + steps) + 1], 0, 0, 'WITHSCORES')
      at(tonumber(first[2]))
    end
  end
  local first = call('ZRANGE', workers, 0, 0, 'WITHSCORES')
  at(tonumber(first[2]))
  out[2] = wait
end
if got == 0 or ARGV[6] == '1' then
  out[4] = call('ZRANGEBYSCORE', workers, '-inf', now, 'LIMIT', 0, 8)
end
out[1], out[3] = n, buried
return out
