-- Reads the documents of indexes by score, without those that the server has forgotten.
-- KEYS: the indexes
-- ARGV: the prefix of documents, first bound, last bound, 'REV' for the greatest scores first or '', how many at most of
--   each index ('': all)
-- Reads keys that are not in KEYS: all keys of a ledger are in one slot.
-- Returns the key, version and text of each.
local found, page = {}, 100
for _, index in ipairs(KEYS) do
  local left, offset, keys = tonumber(ARGV[5]) or math.huge, 0, nil
  repeat
    if ARGV[4] == 'REV' then
      keys = redis.call('ZRANGE', index, ARGV[2], ARGV[3], 'BYSCORE', 'REV', 'LIMIT', offset, page)
    else
      keys = redis.call('ZRANGE', index, ARGV[2], ARGV[3], 'BYSCORE', 'LIMIT', offset, page)
    end
    for _, key in ipairs(keys) do
      local row = left > 0 and redis.call('HMGET', ARGV[1] .. key, 'version', 'value')
      if row and row[1] then
        found[#found + 1], left = {key, row[1], row[2]}, left - 1
      end
    end
    offset = offset + page
  until #keys < page or left <= 0
end
return found
