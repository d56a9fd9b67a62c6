-- Notes by which grants calls of a batch were approved, instead of those of before.
-- KEYS: the batch, the revision
-- ARGV: at, milliseconds to keep it, then numbers and grants
for i = 3, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i] .. ':grant', ARGV[i + 1])
  redis.call('HSETNX', KEYS[1], ARGV[i] .. ':at', ARGV[1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('INCR', KEYS[2])
return 1
