local from, to = unpack(ARGV)
local found = redis.call('HGET', secrets, from)
if not found or redis.call('HEXISTS', secrets, to) == 1 then
  return 0
end
local id, key = string.sub(found, 1, 16), cmsgpack.unpack(string.sub(found, 17))
key[key[FORMER] == from and FORMER or CURRENT] = to
redis.call('HDEL', secrets, from)
save(id, key)
return 1
