-- Begin a term, or confirm that it lasts, and read the outbox.
--
-- ARGV[1..4]  see common.lua
-- ARGV[5]     who writes   ARGV[6]  longest length of the stream
-- ARGV[7]     term         ARGV[8]  holder
--
-- Returns: the rows of the outbox
-- Errors:  FENCED <term> <holder>   the fence is higher, or equal with another holder
restore()
local mine = tonumber(ARGV[7])
if mine < term or (mine == term and holder ~= ARGV[8]) then
  return fenced()
end
redis.call('HSET', P .. 'fence', 'term', ARGV[7], 'holder', ARGV[8])
if mine > term then
  redis.call('XADD', P .. 'log', 'MAXLEN', '~', ARGV[6], '*', 'by', ARGV[5],
    'fence', ARGV[7] .. ' ' .. ARGV[8])
end
return redis.call('HVALS', P .. 'outbox')
