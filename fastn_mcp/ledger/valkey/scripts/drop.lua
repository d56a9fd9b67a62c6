-- Deletes records of a caller, or the states of changes, unless one was changed since it was read.
-- KEYS: the caller's records by time, their sizes (the field '' is the sum), the revision, then the records
-- ARGV: number of fields that were read, their names, then for each record its id, whether only its state is dropped
--   and the values that were read ('': none)
local count = tonumber(ARGV[1])
for n = 4, #KEYS do
  local key, at = KEYS[n], 2 + count + (n - 4) * (count + 2)
  local id, is_same = ARGV[at], true
  local found = redis.call('HMGET', key, unpack(ARGV, 2, 1 + count))
  for i = 1, count do
    is_same = is_same and (found[i] or '') == ARGV[at + 1 + i]
  end
  local size = tonumber(redis.call('HGET', KEYS[2], id) or '0')
  if is_same and ARGV[at + 1] == '1' then
    local less = 0
    for _, name in ipairs({'before', 'arguments', 'sent'}) do
      if redis.call('HEXISTS', key, name) == 1 then
        less = less + redis.call('HSTRLEN', key, name) - 2
        redis.call('HSET', key, name, '{}')
      end
    end
    redis.call('HSET', key, 'is_state_dropped', '1')
    redis.call('HINCRBY', KEYS[2], id, -less)
    redis.call('HINCRBY', KEYS[2], '', -less)
  elseif is_same then
    redis.call('DEL', key)
    redis.call('ZREM', KEYS[1], id)
    redis.call('HDEL', KEYS[2], id)
    redis.call('HINCRBY', KEYS[2], '', -size)
  end
end
redis.call('INCR', KEYS[3])
return 1
