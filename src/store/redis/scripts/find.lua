for i, digest in ipairs(ARGV) do
  local id = redis.call('HGET', KEYS[2], digest)
  if id then
    return {i, id, redis.call('HGET', KEYS[1], id)}
  end
end
return false
