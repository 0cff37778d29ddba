local digest = redis.call('HGET', KEYS[1], ARGV[1])
if not digest then
  return false
end
local found = redis.call('HGET', KEYS[2], digest)
if not found then
  error({ err = 'CORRUPT a key in Redis is damaged' })
end
return string.sub(found, 17)
