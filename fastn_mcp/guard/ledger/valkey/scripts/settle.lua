-- Sets fields of a change that is there, where one of them is as expected: of several who undo it one may.
-- KEYS: the change, the revision, and those of its call whose outcome is not known, where that of this one is known now
-- ARGV: the id, a field, what it must be, then fields and values
local before = redis.call('HGET', KEYS[1], ARGV[2])
if not before or ARGV[3] ~= '' and before ~= ARGV[3] then
  return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
if KEYS[3] then
  redis.call('ZREM', KEYS[3], ARGV[1])
end
redis.call('INCR', KEYS[2])
return 1
