-- Reads several documents at one moment.
-- KEYS: the documents
-- Returns the version and text of each; neither if it does not exist.
local found = {}
for i, key in ipairs(KEYS) do
  local row = redis.call('HMGET', key, 'version', 'value')
  found[i] = row[1] and row or {}
end
return found
