local tag, prefix, at = unpack(ARGV)
local members = redis.call('ZRANGEBYLEX', index, '[' .. prefix, '(' .. prefix .. NEVER .. LAST)
for _, member in ipairs(members) do
  append_to_feed(string.sub(member, -16), at, tag)
end
if #members > 0 then
  notify()
end
return #members
