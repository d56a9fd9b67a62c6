-- Moves a grant from one state to another: of any number of attempts on any replica one succeeds.
-- KEYS: the grant, the open ones of its principal, all that wait elsewhere, all that are decided, the revision
-- ARGV: id, now, after, milliseconds to keep, how many states it may be in, those states, then fields and values
local id, now, after, kept, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local state, expires = unpack(redis.call('HMGET', KEYS[1], 'state', 'expires'))
-- What is decided for good stays so, whatever is asked for.
if state ~= 'open' and state ~= 'approved' or after == 'open' or tonumber(expires) <= tonumber(now) then
  return 0
end
local may = false
for i = 6, 5 + count do
  may = may or ARGV[i] == state
end
if not may then
  return 0
end
redis.call('HSET', KEYS[1], 'state', after, 'decided', now, unpack(ARGV, 6 + count))
redis.call('ZREM', KEYS[2], id)
redis.call('ZREM', KEYS[3], id)
redis.call('ZADD', KEYS[4], now, id)
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now - kept / 1000)
redis.call('PEXPIRE', KEYS[4], kept)
redis.call('INCR', KEYS[5])
return 1
