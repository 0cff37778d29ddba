-- Of each event: its id and its members of the index.
local purged = 0
for _, packed in ipairs(ARGV) do
  local event = cmsgpack.unpack(packed)
  local entry = redis.call('HGET', audit_entries, event[1])
  if entry then
    redis.call('XDEL', audit, entry)
    redis.call('HDEL', audit_entries, event[1])
    purged = purged + 1
    redis.call('ZREM', audit_index, unpack(event, 2))
  end
end
return purged
