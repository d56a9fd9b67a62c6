-- Keeps a sealed secret for a while.
-- KEYS: the secret, the revision
-- ARGV: the sealed secret, milliseconds to keep
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('INCR', KEYS[2])
return 1
