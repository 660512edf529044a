-- Claims an id, or marks it as done. The value is the owner while it is claimed.
-- KEYS: the id's. ARGV: owner, ms, done?. Returns 1 if the owner has it.
local have = redis.call('GET', KEYS[1])
if ARGV[3] == '1' then
  redis.call('SET', KEYS[1], 'done', 'PX', ARGV[2])
  return 1
end
if have and have ~= 'owner ' .. ARGV[1] then return 0 end
redis.call('SET', KEYS[1], 'owner ' .. ARGV[1], 'PX', ARGV[2])
return 1
