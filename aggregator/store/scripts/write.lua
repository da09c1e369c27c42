-- A leader's write: refused unless the fence is exactly the writer's.
--
-- ARGV[1..4]  see common.lua
-- ARGV[5]     who writes   ARGV[6]  longest length of the stream
-- ARGV[7]     term         ARGV[8]  holder
-- ARGV[9]     what:
--   confirm format           nothing but the check; raise the store's format to this one, which
--                            all members read
--   record field row         keep an outbox row; write-once
--   drop   fields            forget rows; 32 bytes each
--   evict  entries           delete each entry that is stored exactly so, never take it again, and
--                            let the other value that was put beside it take its place
--
-- Returns: OK; for confirm the store's format
-- Errors:  FENCED <term> <holder>   the fence is not exactly (term, holder); nothing was written
--          DAMAGED                  another row has this field; nothing was written
restore()
if tonumber(ARGV[7]) ~= term or holder ~= ARGV[8] then
  return fenced()
end
local function tell(kind, what)
  redis.call('XADD', P .. 'log', 'MAXLEN', '~', ARGV[6], '*', 'by', ARGV[5], kind, what)
end
local what, data = ARGV[9], ARGV[10]
if what == 'confirm' then
  local now = tonumber(meta[2] or FIRST_FORMAT)
  if tonumber(data) > now then
    now = tonumber(data)
    redis.call('HSET', P .. 'meta', 'format', data)
  end
  redis.call('HSET', P .. 'fence', 'term', ARGV[7], 'holder', ARGV[8])
  return string.format('%.0f', now)
elseif what == 'record' then
  local held, row = redis.call('HGET', P .. 'outbox', data), ARGV[11]
  if held and held:sub(1, 32) ~= row:sub(1, 32) then
    return redis.error_reply('DAMAGED row')
  end
  redis.call('HSET', P .. 'outbox', data, held or row)
  if not held then
    tell('row', row)
  end
elseif what == 'drop' then
  for at = 1, #data, 32 do
    redis.call('HDEL', P .. 'outbox', data:sub(at, at + 31))
  end
  tell('dropped', data)
elseif what == 'evict' then
  for at = 1, #data, 128 do
    local batch, operator = data:sub(at, at + 31), data:sub(at + 32, at + 63)
    local signature = data:sub(at + 64, at + 127)
    local key, conflict = P .. 'batch:' .. batch, P .. 'conflict:' .. batch
    redis.call('HSET', P .. 'refuted:' .. batch, operator .. signature, '')
    redis.call('SADD', P .. 'open', batch)
    local other = redis.call('HGET', conflict, operator)
    if other == signature then
      redis.call('HDEL', conflict, operator)
    elseif redis.call('HGET', key, operator) == signature then
      redis.call('HDEL', key, operator)
      if other then
        redis.call('HDEL', conflict, operator)
        redis.call('HSET', key, operator, other)
        tell('entries', batch .. operator .. other)
      end
    end
  end
  tell('evicted', data)
end
redis.call('HSET', P .. 'fence', 'term', ARGV[7], 'holder', ARGV[8])
return 'OK'
