-- Notes that a call of a batch is about to be made: of any number who do so on any replica one may.
-- KEYS: the batch, the revision
-- ARGV: number, at, milliseconds to keep it, the outcome to note, then those after which it is never begun again
local outcome = redis.call('HGET', KEYS[1], ARGV[1] .. ':outcome')
for i = 5, #ARGV do
  if ARGV[i] == outcome then
    return 0
  end
end
redis.call('HSET', KEYS[1], ARGV[1] .. ':outcome', ARGV[4], ARGV[1] .. ':at', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('INCR', KEYS[2])
return 1
