-- Ended codes first, then counters of anonymous callers.
local before, limit = unpack(ARGV)
local function old_members(kind, limit)
  return redis.call('ZRANGEBYLEX', index, '[' .. kind, '(' .. kind .. before, 'LIMIT', 0, limit)
end
local ended = old_members('C', limit)
for _, member in ipairs(ended) do
  delete_code(string.sub(member, 10), string.sub(member, 2, 9))
end
local anonymous = old_members('G', limit - #ended)
for _, member in ipairs(anonymous) do
  redis.call('HDEL', counters, string.sub(member, 10))
  redis.call('ZREM', index, member)
end
return #ended + #anonymous
