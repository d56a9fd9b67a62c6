-- Removes a key, once: of several who do, one is told that it was there.
-- KEYS: the key, the revision
local removed = redis.call('DEL', KEYS[1])
if removed == 1 then
  redis.call('INCR', KEYS[2])
end
return removed
