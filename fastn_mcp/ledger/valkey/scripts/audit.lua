-- Stores the number and hash of an entry of an audit log. A greater number is kept.
-- KEYS: the mark of the log
-- ARGV: number, hash, milliseconds to keep it
local before = redis.call('HGET', KEYS[1], 'n')
if before and tonumber(before) >= tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], 'n', ARGV[1], 'head', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
