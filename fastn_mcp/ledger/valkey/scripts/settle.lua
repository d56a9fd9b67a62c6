-- Sets fields of an existing change if one field has the expected value, so that only one caller can claim its undo.
-- KEYS: the change, the revision and, with its outcome, the changes under way, the unsettled changes of its call and the
--   sizes of the changes of its caller (the field '' is the sum)
-- ARGV: the id, a field, its expected value ('': any), its size with the outcome, then fields and values
local before = redis.call('HGET', KEYS[1], ARGV[2])
if not before or ARGV[3] ~= '' and before ~= ARGV[3] then
  return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV, 5))
if KEYS[3] then
  redis.call('ZREM', KEYS[3], ARGV[1])
  local ends = redis.call('HGET', KEYS[1], 'unsettled_until')
  if tonumber(ends) > 0 then
    redis.call('ZADD', KEYS[4], ends, ARGV[1])
  else
    redis.call('ZREM', KEYS[4], ARGV[1])
  end
  local size = redis.call('HGET', KEYS[5], ARGV[1])
  if size then
    redis.call('HSET', KEYS[5], ARGV[1], ARGV[4])
    redis.call('HINCRBY', KEYS[5], '', ARGV[4] - size)
  end
end
redis.call('INCR', KEYS[2])
return 1
