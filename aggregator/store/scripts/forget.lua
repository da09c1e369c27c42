-- Drop all signatures of batches. Any replica may: the chain is final, and says the same to all.
--
-- ARGV[1..4]  see common.lua
-- ARGV[5..]   batch ids
--
-- Returns: how many of them had signatures
restore()
local gone = 0
for at = 5, #ARGV do
  local batch = ARGV[at]
  gone = gone + redis.call('SREM', P .. 'open', batch)
  redis.call('DEL', P .. 'batch:' .. batch, P .. 'conflict:' .. batch, P .. 'refuted:' .. batch)
end
return gone
