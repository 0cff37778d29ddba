local before, limit = unpack(ARGV)
local members = redis.call('ZRANGEBYLEX', index, '[C', '(C' .. before, 'LIMIT', 0, limit)
for _, member in ipairs(members) do
  delete_code(string.sub(member, 10), string.sub(member, 2, 9))
end
return #members
