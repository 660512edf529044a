-- Lists the claims without a sign of life for longer than the visibility timeout,
-- each with its score, apart from those of Go consumers: they end with their leases.
-- KEYS: unacked_index. ARGV: seconds, most.
local time = redis.call('TIME')
local last, most = string.format('%d', time[1] - ARGV[1]), 2 * tonumber(ARGV[2])
local out, from, page = {}, 0, nil
repeat
  page = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', last, 'WITHSCORES', 'LIMIT', from, 1000)
  for i = 1, #page, 2 do
    if #out < most and string.sub(page[i], 1, 4) ~= 'lv1:' then
      out[#out + 1] = page[i]
      out[#out + 1] = page[i + 1]
    end
  end
  from = from + 1000
until #page < 2000 or #out == most
return out
