local removed = 0
for _, packed in ipairs(ARGV) do
  local event = cmsgpack.unpack(packed)
  if redis.call('HDEL', events, event[1]) == 1 then
    removed = removed + 1
    redis.call('ZREM', log, unpack(event, 2))
  end
end
return removed
