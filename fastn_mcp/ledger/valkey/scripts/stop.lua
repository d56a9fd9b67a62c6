-- Records a stop, or that it was lifted, once, and wakes the calls that wait for a decision.
-- KEYS: the stops, the revision, the stream of changes
-- ARGV: the field, its value, then fields to delete
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then
  return 0
end
for i = 3, #ARGV do
  redis.call('HDEL', KEYS[1], ARGV[i])
end
redis.call('INCR', KEYS[2])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', 100, '*', 'id', ARGV[1])
return 1
