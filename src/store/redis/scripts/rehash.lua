local from, to = unpack(ARGV)
local id = redis.call('HGET', secrets, from)
if not id or redis.call('HEXISTS', secrets, to) == 1 then
  return 0
end
local key = load(id)
key[key[FORMER] == from and FORMER or CURRENT] = to
redis.call('HDEL', secrets, from)
redis.call('HSET', secrets, to, id)
save(id, key)
return 1
