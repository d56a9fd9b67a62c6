-- Sets fields of a change that is there, where one of them is as expected: of several who undo it one may.
-- KEYS: the change, the revision, and the unsettled ones of its call, where it has any
-- ARGV: the id, a field, what it must be, then fields and values
local before = redis.call('HGET', KEYS[1], ARGV[2])
if not before or ARGV[3] ~= '' and before ~= ARGV[3] then
  return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
if KEYS[3] then
  local ends = redis.call('HGET', KEYS[1], 'unsettled_until')
  if tonumber(ends) > 0 then
    redis.call('ZADD', KEYS[3], ends, ARGV[1])
  else
    redis.call('ZREM', KEYS[3], ARGV[1])
  end
end
redis.call('INCR', KEYS[2])
return 1
