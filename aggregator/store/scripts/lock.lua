-- Compare and swap the record of the Redis election.
--
-- ARGV[1..4]  see common.lua
-- ARGV[5]     version the caller saw; empty: no record
-- ARGV[6]     the next version, never used before; empty: read only
-- ARGV[7]     the record to write
--
-- Returns: whether it was swapped (1 or 0), then version and record as they are now (empty: none)
local held = redis.call('HMGET', P .. 'election', 'version', 'record')
if ARGV[6] == '' then
  return { 0, held[1] or '', held[2] or '' }
end
restore()
if (held[1] or '') ~= ARGV[5] then
  return { 0, held[1] or '', held[2] or '' }
end
redis.call('HSET', P .. 'election', 'version', ARGV[6], 'record', ARGV[7])
return { 1, ARGV[6], ARGV[7] }
