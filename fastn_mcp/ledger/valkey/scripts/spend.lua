-- Counts one use of each budget, or none if one of the limits is reached. The limits hold across replicas.
-- KEYS: the budgets, the revision
-- ARGV: for each budget its limit, and milliseconds to keep it (0: for ever)
local budgets = #KEYS - 1
for i = 1, budgets do
  if tonumber(redis.call('GET', KEYS[i]) or '0') >= tonumber(ARGV[2 * i - 1]) then
    return 0
  end
end
for i = 1, budgets do
  redis.call('INCR', KEYS[i])
  if ARGV[2 * i] ~= '0' then
    redis.call('PEXPIRE', KEYS[i], ARGV[2 * i])
  end
end
redis.call('INCR', KEYS[#KEYS])
return 1
