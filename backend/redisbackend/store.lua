-- Stores results. ARGV: five for each, see store.
local ARGV, call = ARGV, redis.call
--STORE--
local i = 1
while i <= #ARGV do i = store(i) end
return #ARGV / 5
