local before, limit = unpack(ARGV)
local reply = {}
for _, member in ipairs(redis.call('ZRANGEBYLEX', audit_index, '[A', '(A' .. before, 'LIMIT', 0, limit)) do
  local id = string.sub(member, -16)
  reply[#reply + 1] = id
  reply[#reply + 1] = event_record(id) or corrupt('an index')
end
return reply
