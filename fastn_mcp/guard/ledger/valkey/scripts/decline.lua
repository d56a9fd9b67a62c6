-- Counts declines in a row: none is lost between replicas.
-- KEYS: the declines of a principal, the revision
-- ARGV: now, milliseconds to keep them
redis.call('HINCRBY', KEYS[1], 'count', 1)
redis.call('HSET', KEYS[1], 'last', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('INCR', KEYS[2])
return 1
