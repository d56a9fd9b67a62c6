-- Records a temporary approval under its id, in the index of what it covers and in the list of all.
-- KEYS: the temporary approval, those that cover the same, all, the revision
-- ARGV: id, its data, created, expires, milliseconds until then
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[5])
for i = 2, 3 do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', ARGV[3] - 3600)
  redis.call('ZADD', KEYS[i], ARGV[4], ARGV[1])
end
redis.call('PEXPIRE', KEYS[2], ARGV[5])
redis.call('INCR', KEYS[4])
return 1
