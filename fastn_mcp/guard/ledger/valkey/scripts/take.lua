-- Removes and returns a sealed secret. Only one of any concurrent takes, on all replicas, gets it.
-- KEYS: the secret, the revision
local found = redis.call('GETDEL', KEYS[1])
if found then
  redis.call('INCR', KEYS[2])
end
return found
