local before, limit = unpack(ARGV)
local members = redis.call('ZRANGEBYLEX', index, '[H', '(H' .. before, 'LIMIT', 0, limit)
for _, member in ipairs(members) do
  delete_hour(string.sub(member, -16), string.sub(member, 2, 9))
end
return #members
