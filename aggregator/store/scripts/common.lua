-- Put in front of every script. Checks whose state this is and restores the fence.
--
-- KEYS[1]  prefix of all keys of this deployment
-- ARGV[1]  identity   ARGV[2]  highest format the caller reads
-- ARGV[3]  term and   ARGV[4]  holder of the highest fence the caller knows; 0 and empty: none
--
-- Errors: IDENTITY <text>   the state is another deployment's
--         FORMAT <number>   the state was written by a later release
--
-- Restoring here means: whoever writes to a primary that forgot the fence brings it back in the
-- same step, so nothing is checked against a fence that a failover lowered.
local P = KEYS[1]
local meta = redis.call('HMGET', P .. 'meta', 'identity', 'format')
if meta[1] and meta[1] ~= ARGV[1] then
  return redis.error_reply('IDENTITY ' .. meta[1])
end
if meta[2] and tonumber(meta[2]) > tonumber(ARGV[2]) then
  return redis.error_reply('FORMAT ' .. meta[2])
end
-- Every release reads this one; the leader raises it when all members read a later one.
local FIRST_FORMAT = '1'
local fence = redis.call('HMGET', P .. 'fence', 'term', 'holder')
local term, holder = tonumber(fence[1] or '0'), fence[2] or ''

local function restore()
  if not meta[1] then
    redis.call('HSET', P .. 'meta', 'identity', ARGV[1], 'format', FIRST_FORMAT)
  end
  if tonumber(ARGV[3]) > term then
    term, holder = tonumber(ARGV[3]), ARGV[4]
    redis.call('HSET', P .. 'fence', 'term', ARGV[3], 'holder', ARGV[4])
  end
end

local function fenced()
  return redis.error_reply('FENCED ' .. string.format('%.0f', term) .. ' ' .. holder)
end
