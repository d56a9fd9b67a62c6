-- Records a change once and indexes it by account. Each call of a list begins only once across replicas.
-- KEYS: the change, changes of its account, the revision, changes of its list by number, changes under way, unsettled
--   changes of its call, changes of its caller by time, their sizes (the field '' is the sum), changes by its approval
--   request, if there is one
-- ARGV: id, at, until when it is unsettled, milliseconds to keep it, the key prefix of changes, its number in
--   its list (0: it is in none), its call ('': it is never unsettled), number of final outcomes, those, its size, the
--   limit of the sum, then fields and values
-- Returns 1, 0 if its list has begun it, -1 if the id is taken, or -2 if its caller's changes would be too large.
local id, at, kept, number, count = ARGV[1], ARGV[2], ARGV[4], ARGV[6], tonumber(ARGV[8])
local size, limit = ARGV[9 + count], ARGV[10 + count]
if number ~= '0' then
  local begun = redis.call('HGET', KEYS[4], number)
  local outcome = begun and redis.call('HGET', ARGV[5] .. begun, 'outcome')
  for i = 9, 8 + count do
    if outcome == ARGV[i] then
      return 0
    end
  end
end
if redis.call('EXISTS', KEYS[1]) == 1 then
  return -1
end
if tonumber(redis.call('HGET', KEYS[8], '') or '0') + size > tonumber(limit) then
  return -2
end
redis.call('ZADD', KEYS[7], at, id)
redis.call('PEXPIRE', KEYS[7], kept)
redis.call('HSET', KEYS[8], id, size)
redis.call('HINCRBY', KEYS[8], '', size)
redis.call('PEXPIRE', KEYS[8], kept)
if number ~= '0' then
  redis.call('HSET', KEYS[4], number, id)
  redis.call('PEXPIRE', KEYS[4], kept)
end
redis.call('HSET', KEYS[1], unpack(ARGV, 11 + count))
redis.call('PEXPIRE', KEYS[1], kept)
redis.call('ZADD', KEYS[2], at, id)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', at - kept / 1000)
redis.call('PEXPIRE', KEYS[2], kept)
redis.call('ZADD', KEYS[5], at, id)
redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', at - 86400)
redis.call('PEXPIRE', KEYS[5], 86400000)
if ARGV[7] ~= '' then
  redis.call('ZADD', KEYS[6], ARGV[3], id)
  redis.call('PEXPIRE', KEYS[6], 86400000)
end
if KEYS[9] then
  redis.call('HSET', KEYS[9], id, at)
  redis.call('PEXPIRE', KEYS[9], kept)
end
redis.call('INCR', KEYS[3])
return 1
