-- Opens a grant, unless so many of its principal wait already: two replicas cannot both take the last place.
-- KEYS: the grant, the open ones of its principal, those of its call, all that wait elsewhere, all that are decided,
--   the revision
-- ARGV: id, created, expires, elsewhere, most, milliseconds to keep, when it was decided ('': it is open), then fields
--   and values
local id, created, expires, kept, decided = ARGV[1], ARGV[2], ARGV[3], ARGV[6], ARGV[7]
if redis.call('EXISTS', KEYS[1]) == 1 then
  return -1
end
-- Those that ran out no longer wait. An hour of grace, since clocks differ.
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', created - 3600)
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', created - 3600)
if redis.call('ZCOUNT', KEYS[2], '(' .. created, '+inf') >= tonumber(ARGV[5]) then
  return 0
end
local function list(key, score)
  redis.call('ZADD', key, score, id)
  redis.call('PEXPIRE', key, kept)
end
redis.call('HSET', KEYS[1], unpack(ARGV, 8))
redis.call('PEXPIRE', KEYS[1], kept)
if ARGV[4] == '1' then
  list(KEYS[3], created)
end
-- What was decided with others waits for nobody.
if decided ~= '' then
  list(KEYS[5], decided)
else
  list(KEYS[2], expires)
  if ARGV[4] == '1' then
    list(KEYS[4], expires)
  end
end
redis.call('INCR', KEYS[6])
return 1
