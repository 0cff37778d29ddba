local before_it, limit = unpack(ARGV)
local function old(kind, limit)
  return redis.call('ZRANGEBYLEX', index, '[' .. kind, '(' .. kind .. before_it, 'LIMIT', 0, limit)
end
local ended = old('C', limit)
for _, member in ipairs(ended) do
  forget_code(string.sub(member, 10), string.sub(member, 2, 9))
end
local guests = old('G', limit - #ended)
for _, member in ipairs(guests) do
  redis.call('HDEL', quotas, string.sub(member, 10))
  redis.call('ZREM', index, member)
end
return #ended + #guests
