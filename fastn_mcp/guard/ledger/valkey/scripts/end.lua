-- Notes what became of a call of a batch of which something is known.
-- KEYS: the batch, the revision
-- ARGV: number, at, milliseconds to keep it, its outcome, the change that it made (none: '')
local at, change = ARGV[1] .. ':at', ARGV[1] .. ':change'
if redis.call('HEXISTS', KEYS[1], at) == 0 then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1] .. ':outcome', ARGV[4], at, ARGV[2])
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[1], change, ARGV[5])
else
  redis.call('HDEL', KEYS[1], change)
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('INCR', KEYS[2])
return 1
