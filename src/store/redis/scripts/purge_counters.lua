local before, limit = unpack(ARGV)
local members = redis.call('ZRANGEBYLEX', index, '[G', '(G' .. before, 'LIMIT', 0, limit)
for _, member in ipairs(members) do
  redis.call('HDEL', counters, string.sub(member, 10))
  redis.call('ZREM', index, member)
end
return #members
