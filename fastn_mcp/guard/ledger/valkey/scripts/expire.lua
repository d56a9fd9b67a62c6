-- Closes a grant that ran out unanswered: of any number of replicas one does.
-- KEYS: the grant, the open ones of its principal, all that wait elsewhere, all that are decided, the revision, those of
--   its account that can expire
-- ARGV: id, now, milliseconds to keep
-- Answers 1 where it was open. Those that were answered in time are only taken out of the last list.
local id, now, kept = ARGV[1], ARGV[2], ARGV[3]
local state, expires = unpack(redis.call('HMGET', KEYS[1], 'state', 'expires'))
if state == 'open' and tonumber(expires) > tonumber(now) then
  return 0
end
redis.call('ZREM', KEYS[6], id)
if state ~= 'open' then
  return 0
end
redis.call('HSET', KEYS[1], 'state', 'unanswered', 'decided', expires)
redis.call('ZREM', KEYS[2], id)
redis.call('ZREM', KEYS[3], id)
redis.call('ZADD', KEYS[4], expires, id)
redis.call('PEXPIRE', KEYS[4], kept)
redis.call('INCR', KEYS[5])
return 1
