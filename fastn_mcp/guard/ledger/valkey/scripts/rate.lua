-- Uses one of a budget that allows so many within a time, unless they are used: replicas together cannot use more.
-- KEYS: the uses by their time, the revision
-- ARGV: now, the time before which uses count no more, limit, milliseconds to keep them
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2])
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then
  return 0
end
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[1] .. ' ' .. redis.call('INCR', KEYS[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
