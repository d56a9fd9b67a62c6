-- Reads the states of several requests at one moment, in one round trip.
local found = {}
for i, key in ipairs(KEYS) do
  found[i] = redis.call('HGET', key, 'state')
end
return found
