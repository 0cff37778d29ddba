local tag, id, digest, packed, at, event = unpack(ARGV, 1, 6)
local max, first, last = unpack(ARGV, 7, 9)
if redis.call('HEXISTS', keys, id) == 1 or redis.call('HEXISTS', secrets, digest) == 1 then
  return 'taken'
end
if max ~= '' and redis.call('ZLEXCOUNT', index, first, last) >= tonumber(max) then
  return 'limit'
end
redis.call('HSET', keys, id, digest)
redis.call('HSET', secrets, digest, id .. packed)
for i = 10, #ARGV do
  redis.call('ZADD', index, 0, ARGV[i])
end
record(event)
feed(id, at, tag)
tell()
return 'done'
