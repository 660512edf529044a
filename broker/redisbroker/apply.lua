-- Applies changes, each as a whole or, if its claim has ended, not at all.
-- KEYS: in a cluster all of the shard, else none.
-- ARGV: unacked, unacked_index, prefix of lists, prefix of the rest, spread?, key
-- and value of the attempt (see attempt.go), then for each change: the field of
-- its claim or '' for none, the number of operations, and these:
--   L list raw            push to the producing end
--   R list raw            push to the consuming end
--   P queue list due raw  park until due, in ms
--   T queue list due raw  park if a Go consumer of the queue lives, who will bring
--                         it back; else push it: Python waits for its ETA itself
--   D queue head raw      dead-letter; head is JSON that lacks at
--   S (see store)         store a result
--   B channel message     publish
--   H queue token         note that a queue has what comes by a channel, too
--   F queue list raw token  push to the producing end what came by a channel, if
--                         nobody has noted it: all who consume from a queue hear it
--   E end parts added size ms n   end a chord, unless its end is marked already:
--                         then the n operations after it are left out
-- For many changes in a row that each end a claim and store a success, for this is
-- what most are and each argument costs, there is instead: 'S', how many, their
-- time to live in ms, and for each the field of its claim, key and document.
-- Returns 1 or 0 for each change, and after it for each of its E.
local ARGV, call = ARGV, redis.call
local unacked, index, prefix, home = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
--STORE--
local function park(i)
  local id = string.format('%015d:%s', call('INCR', home .. 'lovage.parked.id'), ARGV[i + 1])
  local parked = home .. 'lovage.parked.' .. ARGV[i]
  call('HSET', parked .. '.raw', id, ARGV[i + 3])
  call('ZADD', parked, ARGV[i + 2], id)
  return i + 4
end
local function heard(queue, token)
  return call('SET', home .. 'lovage.heard.' .. queue .. '.' .. token, '1', 'NX', 'EX', 300)
end
local out, omit = {}, 0
local ops = {
  L = function(i) call('LPUSH', prefix .. ARGV[i], ARGV[i + 1]) return i + 2 end,
  R = function(i) call('RPUSH', prefix .. ARGV[i], ARGV[i + 1]) return i + 2 end,
  P = park,
  T = function(i)
    if call('ZCOUNT', home .. 'lovage.consumers.' .. ARGV[i], '(' .. string.format('%d', now), '+inf') > 0 then return park(i) end
    call('LPUSH', prefix .. ARGV[i + 1], ARGV[i + 3])
    return i + 4
  end,
  D = function(i)
    local dead = home .. 'lovage.dead'
    local id = call('INCR', dead .. '.id')
    if ARGV[5] == '1' and id < now * 1000 then -- in the order of all shards
      id = string.format('%d', now * 1000)
      call('SET', dead .. '.id', id)
    end
    call('HSET', dead, id, '{"at": ' .. string.format('%d', now) .. ', ' .. string.sub(ARGV[i + 1], 2) .. '\n' .. ARGV[i + 2])
    call('ZADD', dead .. '.index', id, id)
    call('ZADD', dead .. '.index.' .. ARGV[i], id, id)
    return i + 3
  end,
  S = store,
  B = function(i) call('PUBLISH', ARGV[i], ARGV[i + 1]) return i + 2 end,
  H = function(i) heard(ARGV[i], ARGV[i + 1]) return i + 2 end,
  F = function(i)
    if heard(ARGV[i], ARGV[i + 3]) then call('LPUSH', prefix .. ARGV[i + 1], ARGV[i + 2]) end
    return i + 4
  end,
  E = function(i)
    if call('SET', ARGV[i], '1', 'NX', 'PX', ARGV[i + 4]) then
      call('DEL', ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
      out[#out + 1] = 1
    else
      omit = tonumber(ARGV[i + 5])
      out[#out + 1] = 0
    end
    return i + 6
  end,
}
local skip = {L = 2, R = 2, P = 4, T = 4, D = 3, S = 5, B = 2, H = 2, F = 4, E = 6}
local done, did, i = {}, {}, 8
local ends, told = 0, 0 -- how many there are in done, and in did
local function finish(field)
  local held = field == '' or call('HDEL', unacked, field) == 1
  if held and field ~= '' then
    ends = ends + 1
    done[ends] = field
  end
  told = told + 1
  did[told] = held and '1' or '0'
  out[#out + 1] = held and 1 or 0
  return held
end
while i <= #ARGV do
  local field, n = ARGV[i], tonumber(ARGV[i + 1])
  if field == 'S' then
    local px = ARGV[i + 2]
    i = i + 3
    for j = i, i + 3 * n - 3, 3 do
      if finish(ARGV[j]) then keep(ARGV[j + 1], px, ARGV[j + 2]) end
    end
    i = i + 3 * n
  else
    local held = finish(field)
    i = i + 2
    for _ = 1, n do
      local op = ARGV[i]
      if held and omit == 0 then
        i = ops[op](i + 1)
      else
        if omit > 0 then omit = omit - 1 end
        if op == 'E' then out[#out + 1] = 0 end
        i = i + 1 + skip[op]
      end
    end
  end
end
for j = 1, ends, 1000 do
  call('ZREM', index, unpack(done, j, math.min(j + 999, ends)))
end
if ends > 0 and ARGV[6] ~= '' then call('SET', ARGV[6], ARGV[7] .. ':' .. table.concat(did), 'EX', 86400) end
return out
