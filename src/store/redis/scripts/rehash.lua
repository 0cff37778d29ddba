local from, to = unpack(ARGV)
local found = redis.call('HGET', secrets, from)
if not found or redis.call('HEXISTS', secrets, to) == 1 then
  return 0
end
local id, key = string.sub(found, 1, 16), unpack_key(string.sub(found, 17))
key[key[FORMER] == from and FORMER or CURRENT] = to
redis.call('HDEL', secrets, from)
save_key(id, key)
return 1
