-- Writes documents and their indexes if each document has the expected version, or nothing.
-- KEYS: the revision, the stream of news
-- ARGV: the prefix of documents, that of indexes, '1' if it is news, the step as JSON
-- Uses keys that are not in KEYS: all keys of a ledger are in one slot.
-- Returns the version of what was written, or the key, version and text of each expected document that exists.
local documents, indexes, step = ARGV[1], ARGV[2], cjson.decode(ARGV[4])
for _, expected in ipairs(step.expected) do
  if (redis.call('HGET', documents .. expected[1], 'version') or '0') ~= expected[2] then
    local found = {}
    for _, each in ipairs(step.expected) do
      local row = redis.call('HMGET', documents .. each[1], 'version', 'value')
      if row[1] then
        found[#found + 1] = {each[1], row[1], row[2]}
      end
    end
    return found
  end
end
-- The first write is one that a full server refuses. After a deletion, it would refuse no other one of the script.
local version = redis.call('INCR', KEYS[1])
for _, write in ipairs(step.writes) do
  local document = documents .. write.key
  for _, name in ipairs(cjson.decode(redis.call('HGET', document, 'indexes') or '[]')) do
    redis.call('ZREM', indexes .. name, write.key)
  end
  redis.call('DEL', document)
  if write.value ~= cjson.null then
    redis.call('HSET', document, 'version', version, 'value', write.value)
    local names = {}
    for i, index in ipairs(write.indexes) do
      names[i] = index[1]
      -- Those whose documents the server has forgotten leave the index, the oldest first, faster than others join.
      for _, old in ipairs(redis.call('ZRANGE', indexes .. index[1], 0, 1)) do
        if redis.call('EXISTS', documents .. old) == 0 then
          redis.call('ZREM', indexes .. index[1], old)
        end
      end
      redis.call('ZADD', indexes .. index[1], index[2], write.key)
      if write.lifetime ~= '' then
        redis.call('PEXPIRE', indexes .. index[1], write.lifetime)
      end
    end
    if #names > 0 then
      redis.call('HSET', document, 'indexes', cjson.encode(names))
    end
    if write.lifetime ~= '' then
      redis.call('PEXPIRE', document, write.lifetime)
    end
  end
end
if ARGV[3] == '1' then
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', 100, '*', 'version', version)
end
return version
