-- Say that a replica lives, and read the fence and who else does.
--
-- ARGV[1..4]  see common.lua
-- ARGV[5]     pod
-- ARGV[6]     facts about it, for the others
-- ARGV[7]     milliseconds after which a silent replica is forgotten
--
-- Returns: term and holder of the fence (0 and empty: none), then for each replica its pod, the
--          milliseconds since its last beat, the highest format it reads and its facts
restore()
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('HSET', P .. 'members', ARGV[5], string.format('%.0f/', now) .. ARGV[2] .. ' ' .. ARGV[6])
local answer = { string.format('%.0f', term), holder }
local members = redis.call('HGETALL', P .. 'members')
for at = 1, #members, 2 do
  local seen, reads, facts = members[at + 1]:match('^(%d+)/(%d+) (.*)$')
  local age = now - tonumber(seen or '0')
  if age > tonumber(ARGV[7]) then
    redis.call('HDEL', P .. 'members', members[at])
  else
    answer[#answer + 1] = members[at]
    answer[#answer + 1] = string.format('%.0f', math.max(age, 0))
    answer[#answer + 1] = reads
    answer[#answer + 1] = facts
  end
end
return answer
