-- Records that a fact holds until a time, or that a nonce is used: of concurrent uses on all replicas, one is the first.
-- KEYS: the mark, the revision
-- ARGV: until; a time (nothing is recorded if it already holds until then or later); milliseconds to keep it
local before = redis.call('GET', KEYS[1])
if before and tonumber(before) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
redis.call('INCR', KEYS[2])
return 1
