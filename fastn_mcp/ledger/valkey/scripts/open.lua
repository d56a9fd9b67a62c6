-- Opens a request unless its principal has too many open ones, or too large ones. The limits hold across replicas.
-- KEYS: the request, open requests of its principal, open requests of its account by expiry, open out-of-band requests,
--   decided requests, the revision, requests of its principal by time, their sizes (the field '' is the sum), requests
--   for its call
-- ARGV: id, created, expires, out_of_band, limit, milliseconds to keep, the key prefix of requests, names of the five
--   fields that identify the same request, their values, its size, the limit of the sizes of open requests, that of all
--   requests, then fields and values
-- Returns 1, 0 if too many are open, -1 if the id is taken, -2 if the open ones would be too large, -3 if all would be,
--   or the id of the same request that is open out of band.
-- Reads requests by keys that are not in KEYS: all keys of a ledger are in one slot.
local id, created, expires, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[6]
if redis.call('EXISTS', KEYS[1]) == 1 then
  return -1
end
if ARGV[4] == '1' then
  for _, other in ipairs(redis.call('ZRANGE', KEYS[9], 0, -1)) do
    local found = redis.call('HMGET', ARGV[7] .. other, 'state', 'out_of_band', 'expires', unpack(ARGV, 8, 12))
    local same = found[1] == 'open' and found[2] == '1' and tonumber(found[3]) > tonumber(created)
    for i = 1, 5 do
      same = same and found[3 + i] == ARGV[12 + i]
    end
    if same then
      return other
    end
  end
end
-- The lists of open requests drop expired ones after an hour of grace, since clocks differ.
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', created - 3600)
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', created - 3600)
redis.call('ZREMRANGEBYSCORE', KEYS[9], '-inf', created - kept / 1000)
if redis.call('ZCOUNT', KEYS[2], '(' .. created, '+inf') >= tonumber(ARGV[5]) then
  return 0
end
local size, sum = tonumber(ARGV[18]), 0
for _, other in ipairs(redis.call('ZRANGE', KEYS[2], '(' .. created, '+inf', 'BYSCORE')) do
  sum = sum + (redis.call('HGET', KEYS[8], other) or 0)
end
if sum + size > tonumber(ARGV[19]) then
  return -2
end
if tonumber(redis.call('HGET', KEYS[8], '') or '0') + size > tonumber(ARGV[20]) then
  return -3
end
redis.call('HSET', KEYS[8], id, size)
redis.call('HINCRBY', KEYS[8], '', size)
redis.call('PEXPIRE', KEYS[8], kept)
redis.call('HSET', KEYS[1], 'version', 1, unpack(ARGV, 21))
redis.call('PEXPIRE', KEYS[1], kept)
local function list(key, score)
  redis.call('ZADD', key, score, id)
  redis.call('PEXPIRE', key, kept)
end
list(KEYS[7], created)
list(KEYS[9], created)
list(KEYS[2], expires)
list(KEYS[3], expires)
if ARGV[4] == '1' then
  list(KEYS[4], expires)
end
redis.call('INCR', KEYS[6])
return 1
