-- Records that something holds until a time. A later time is kept.
-- KEYS: the mark, the revision
-- ARGV: until, milliseconds to keep it
local before = redis.call('GET', KEYS[1])
if before and tonumber(before) >= tonumber(ARGV[1]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('INCR', KEYS[2])
return 1
