-- Counts one use of a rate budget unless its limit is reached. The limit holds across replicas.
-- KEYS: the uses by their time, the revision
-- ARGV: now, the time up to which uses no longer count, limit, milliseconds to keep them
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2])
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then
  return 0
end
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[1] .. ' ' .. redis.call('INCR', KEYS[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
