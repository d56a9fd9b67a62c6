-- Counts one use of a budget unless its limit is reached. The limit holds across replicas.
-- KEYS: the budget, the revision
-- ARGV: limit, milliseconds to keep it (0: for ever)
if tonumber(redis.call('GET', KEYS[1]) or '0') >= tonumber(ARGV[1]) then
  return 0
end
redis.call('INCR', KEYS[1])
if ARGV[2] ~= '0' then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
redis.call('INCR', KEYS[2])
return 1
