-- Stores results. ARGV: five for each, see store.
--STORE--
local i = 1
while i <= #ARGV do i = store(i) end
return #ARGV / 5
