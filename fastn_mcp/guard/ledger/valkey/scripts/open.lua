-- Opens a grant, unless so many of its principal wait already: two replicas cannot both take the last place.
-- KEYS: the grant, the open ones of its principal, those of its call, all that wait elsewhere, all that are decided,
--   the revision, those of its account that can expire
-- ARGV: id, created, expires, elsewhere, most, milliseconds to keep, when it was decided ('': it is open), what the keys
--   of grants begin with, four fields that two grants which ask the same have in common, their values, then fields and
--   values
-- Answers 1, 0 where too many wait, -1 where the id is taken, or the id of the grant that asks the same elsewhere. Those
-- of one call are looked up by their ids: all keys of a ledger are in one slot.
local id, created, expires, kept, decided = ARGV[1], ARGV[2], ARGV[3], ARGV[6], ARGV[7]
if redis.call('EXISTS', KEYS[1]) == 1 then
  return -1
end
if ARGV[4] == '1' and decided == '' then
  for _, other in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    local found = redis.call('HMGET', ARGV[8] .. other, 'state', 'out_of_band', 'expires', unpack(ARGV, 9, 12))
    local same = found[1] == 'open' and found[2] == '1' and tonumber(found[3]) > tonumber(created)
    for i = 1, 4 do
      same = same and found[3 + i] == ARGV[12 + i]
    end
    if same then
      return other
    end
  end
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
redis.call('HSET', KEYS[1], unpack(ARGV, 17))
redis.call('PEXPIRE', KEYS[1], kept)
if ARGV[4] == '1' then
  list(KEYS[3], created)
end
-- What was decided with others waits for nobody.
if decided ~= '' then
  list(KEYS[5], decided)
else
  list(KEYS[2], expires)
  list(KEYS[7], expires)
  if ARGV[4] == '1' then
    list(KEYS[4], expires)
  end
end
redis.call('INCR', KEYS[6])
return 1
