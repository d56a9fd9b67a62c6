-- Opens a grant, unless so many of its principal wait already: two replicas cannot both take the last place.
-- KEYS: the grant, the open ones of its principal, those of its call, all that wait elsewhere, the revision
-- ARGV: id, created, expires, elsewhere, most, milliseconds to keep, then fields and values
local id, created, expires, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[6]
if redis.call('EXISTS', KEYS[1]) == 1 then
  return -1
end
-- Those that ran out no longer wait. An hour of grace, since clocks differ.
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', created - 3600)
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', created - 3600)
if redis.call('ZCOUNT', KEYS[2], '(' .. created, '+inf') >= tonumber(ARGV[5]) then
  return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV, 7))
redis.call('PEXPIRE', KEYS[1], kept)
redis.call('ZADD', KEYS[2], expires, id)
redis.call('PEXPIRE', KEYS[2], kept)
if ARGV[4] == '1' then
  redis.call('ZADD', KEYS[3], created, id)
  redis.call('PEXPIRE', KEYS[3], kept)
  redis.call('ZADD', KEYS[4], expires, id)
  redis.call('PEXPIRE', KEYS[4], kept)
end
redis.call('INCR', KEYS[5])
return 1
