-- Records that something holds until a time. Only one of any concurrent uses of a nonce, on all replicas, is the first.
-- KEYS: the mark, the revision
-- ARGV: until, the time from which on it is not recorded if it holds until then already, milliseconds to keep it
local before = redis.call('GET', KEYS[1])
if before and tonumber(before) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
redis.call('INCR', KEYS[2])
return 1
