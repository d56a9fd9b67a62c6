-- Reads the same fields of several keys at one moment, in one round trip.
-- KEYS: the keys
-- ARGV: names of fields
local found = {}
for i, key in ipairs(KEYS) do
  found[i] = redis.call('HMGET', key, unpack(ARGV))
end
return found
