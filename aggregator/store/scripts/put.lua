-- Add signatures, and outbox rows that a failover may have lost. Grow-only: order and repeats do
-- not matter. Writes something for each item even if it is there already: WAIT after a script that
-- wrote nothing says yes at once.
--
-- ARGV[1..4]  see common.lua
-- ARGV[5]     who writes (skips its own news)
-- ARGV[6]     longest length of the stream
-- ARGV[7]     entries, 128 bytes each: batch id, operator id, signature
-- ARGV[8..]   pairs of outbox field and row
--
-- Returns: one character per entry, then one per row:
--   1 new   0 the same is there   2 another value is there; an entry's was put beside it
--   3 refuted: not taken
restore()
local known, states, new = {}, {}, {}
local entries = ARGV[7]
for at = 1, #entries, 128 do
  local batch, operator = entries:sub(at, at + 31), entries:sub(at + 32, at + 63)
  local signature = entries:sub(at + 64, at + 127)
  if known[batch] == nil then
    redis.call('SADD', P .. 'open', batch)
    known[batch] = redis.call('EXISTS', P .. 'refuted:' .. batch) == 1
  end
  local key, refuted = P .. 'batch:' .. batch, P .. 'refuted:' .. batch
  local held = redis.call('HGET', key, operator)
  if held == signature then
    redis.call('HSET', key, operator, signature)
    states[#states + 1] = '0'
  elseif known[batch] and redis.call('HEXISTS', refuted, operator .. signature) == 1 then
    redis.call('HSET', refuted, operator .. signature, '')
    states[#states + 1] = '3'
  elseif held then
    redis.call('HSET', P .. 'conflict:' .. batch, operator, signature)
    states[#states + 1] = '2'
  else
    redis.call('HSET', key, operator, signature)
    states[#states + 1] = '1'
    new[#new + 1] = entries:sub(at, at + 127)
  end
end
if #new > 0 then
  redis.call('XADD', P .. 'log', 'MAXLEN', '~', ARGV[6], '*', 'by', ARGV[5],
    'entries', table.concat(new))
end
for at = 8, #ARGV, 2 do
  local field, row = ARGV[at], ARGV[at + 1]
  local held = redis.call('HGET', P .. 'outbox', field)
  if not held then
    redis.call('HSET', P .. 'outbox', field, row)
    redis.call('XADD', P .. 'log', 'MAXLEN', '~', ARGV[6], '*', 'by', ARGV[5], 'row', row)
    states[#states + 1] = '1'
  else
    redis.call('HSET', P .. 'outbox', field, held)
    states[#states + 1] = held:sub(1, 32) == row:sub(1, 32) and '0' or '2'
  end
end
return table.concat(states)
