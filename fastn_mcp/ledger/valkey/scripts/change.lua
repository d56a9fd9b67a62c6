-- Changes a request if its version is still the one that was read, and updates the declines of its principal. Stores
--   what was typed with a vote, and deletes all that was typed once the request is over.
-- KEYS: the request, open requests of its principal, open requests of its account by expiry, open out-of-band requests,
--   decided requests, the revision, the declines of its principal, the stream of changes, what was typed by approver,
--   temporary approvals that cover the same, all of them, sizes of the requests of its principal (the field '' is the
--   sum)
-- ARGV: id, the version that was read, when it was decided ('': it stays open), expires, out_of_band, change of the
--   declines ('approved': reset, 'declined': one more, or ''), milliseconds to keep, whether it is over, who typed
--   something, what ('': nothing), milliseconds to keep that, until when its temporary approval holds (0: it has none),
--   its size, then the fields that change and their values
local id, decided, expires, answer, kept = ARGV[1], ARGV[3], ARGV[4], ARGV[6], ARGV[7]
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], 'version', ARGV[2] + 1, unpack(ARGV, 14))
if decided == '' then
  redis.call('ZADD', KEYS[2], expires, id)
  redis.call('ZADD', KEYS[3], expires, id)
  if ARGV[5] == '1' then
    redis.call('ZADD', KEYS[4], expires, id)
    redis.call('PEXPIRE', KEYS[4], kept)
  end
else
  for i = 2, 4 do
    redis.call('ZREM', KEYS[i], id)
  end
  redis.call('ZADD', KEYS[5], decided, id)
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', decided - kept / 1000)
  redis.call('PEXPIRE', KEYS[5], kept)
end
if answer == 'approved' then
  redis.call('DEL', KEYS[7])
elseif answer == 'declined' then
  redis.call('HINCRBY', KEYS[7], 'count', 1)
  redis.call('HSET', KEYS[7], 'last', decided)
  redis.call('PEXPIRE', KEYS[7], 90 * 86400000)
end
if ARGV[8] == '1' then
  redis.call('DEL', KEYS[9])
elseif ARGV[10] ~= '' then
  redis.call('HSET', KEYS[9], ARGV[9], ARGV[10])
  redis.call('PEXPIRE', KEYS[9], ARGV[11])
end
local size = redis.call('HGET', KEYS[12], id)
if size then
  redis.call('HSET', KEYS[12], id, ARGV[13])
  redis.call('HINCRBY', KEYS[12], '', ARGV[13] - size)
end
for i = 10, 11 do
  redis.call('ZREM', KEYS[i], id)
  if tonumber(ARGV[12]) > 0 then
    redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', ARGV[12] - 86400)
    redis.call('ZADD', KEYS[i], ARGV[12], id)
    redis.call('PEXPIRE', KEYS[i], 86400000)
  end
end
redis.call('INCR', KEYS[6])
redis.call('XADD', KEYS[8], 'MAXLEN', '~', 100, '*', 'id', id)
redis.call('PEXPIRE', KEYS[8], kept)
return 1
