-- Sets fields of a change that is there, where one of them is as expected: of several who undo it one may.
-- KEYS: the change, the revision
-- ARGV: a field, what it must be, then fields and values
local before = redis.call('HGET', KEYS[1], ARGV[1])
if not before or ARGV[2] ~= '' and before ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('INCR', KEYS[2])
return 1
