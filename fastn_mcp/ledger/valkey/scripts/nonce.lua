-- Records the use of a nonce. Only one of any concurrent uses, on all replicas, is the first.
-- KEYS: the nonce, the revision
-- ARGV: until, now, milliseconds to keep
local before = redis.call('GET', KEYS[1])
if before and tonumber(before) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
redis.call('INCR', KEYS[2])
return 1
