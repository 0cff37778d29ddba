local removed = 0
for _, packed in ipairs(ARGV) do
  local event = cmsgpack.unpack(packed)
  local entry = redis.call('HGET', events, event[1])
  if entry then
    redis.call('XDEL', audit, entry)
    redis.call('HDEL', events, event[1])
    removed = removed + 1
    redis.call('ZREM', log, unpack(event, 2))
  end
end
return removed
