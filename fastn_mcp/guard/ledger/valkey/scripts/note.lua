-- Journals a change, once, where its account finds it.
-- KEYS: the change, those of its account, the revision, and the unsettled ones of its call, where it has any
-- ARGV: id, at, until when it is unsettled, milliseconds to keep it, then fields and values
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV, 5))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[2] - ARGV[4] / 1000)
redis.call('PEXPIRE', KEYS[2], ARGV[4])
if KEYS[4] then
  redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
  redis.call('PEXPIRE', KEYS[4], 86400000)
end
redis.call('INCR', KEYS[3])
return 1
