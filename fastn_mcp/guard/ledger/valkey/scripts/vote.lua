-- Counts a vote, and decides the grant where it is the one that decides: two replicas cannot both count the last one.
-- KEYS: the grant, its votes, the open ones of its principal, all that wait elsewhere, all that are decided, the revision
-- ARGV: id, approver, approves (1 or 0), at, needed, milliseconds to keep, then fields and values of the decided grant
local id, approver, approves, at, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6]
local state, elsewhere, expires = unpack(redis.call('HMGET', KEYS[1], 'state', 'out_of_band', 'expires'))
if state ~= 'open' or elsewhere ~= '1' or tonumber(expires) <= tonumber(at) then
  return ''
end
local place = redis.call('HLEN', KEYS[2])
local before = redis.call('HGET', KEYS[2], approver)
if before then
  -- Only a yes can be taken back.
  if string.sub(before, 1, 1) ~= '1' or approves ~= '0' then
    return ''
  end
  place = string.match(before, '%d+$')
end
redis.call('HSET', KEYS[2], approver, approves .. ' ' .. at .. ' ' .. place)
redis.call('PEXPIRE', KEYS[2], kept)
redis.call('INCR', KEYS[6])
local approving = 0
for _, vote in ipairs(redis.call('HVALS', KEYS[2])) do
  if string.sub(vote, 1, 1) == '1' then
    approving = approving + 1
  end
end
if approves == '1' and approving < tonumber(ARGV[5]) then
  return 'open'
end
local after = approves == '1' and 'approved' or 'declined'
redis.call('HSET', KEYS[1], 'state', after, 'decided', at, unpack(ARGV, 7))
redis.call('ZREM', KEYS[3], id)
redis.call('ZREM', KEYS[4], id)
redis.call('ZADD', KEYS[5], at, id)
redis.call('PEXPIRE', KEYS[5], kept)
return after
