-- Removes a key. Only one of several concurrent callers gets the reply that it existed.
-- KEYS: the key, the revision
local removed = redis.call('DEL', KEYS[1])
if removed == 1 then
  redis.call('INCR', KEYS[2])
end
return removed
