local tag, id, digest, packed, at, event = unpack(ARGV, 1, 6)
local max, first_live, last_live = unpack(ARGV, 7, 9)
if redis.call('HEXISTS', keys, id) == 1 or redis.call('HEXISTS', secrets, digest) == 1 then
  return 'taken'
end
if max ~= '' and redis.call('ZLEXCOUNT', index, first_live, last_live) >= tonumber(max) then
  return 'limit'
end
redis.call('HSET', keys, id, digest)
redis.call('HSET', secrets, digest, id .. packed)
for i = 10, #ARGV do
  redis.call('ZADD', index, 0, ARGV[i])
end
record_event(event)
append_to_feed(id, at, tag)
notify()
return 'done'
