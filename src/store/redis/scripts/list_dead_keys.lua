local before, limit = unpack(ARGV)
local answer = {}
for _, member in ipairs(redis.call('ZRANGEBYLEX', index, '[D', '(D' .. before, 'LIMIT', 0, limit)) do
  local id = string.sub(member, -16)
  answer[#answer + 1] = id
  answer[#answer + 1] = packed_key(id) or corrupt('an index')
end
return answer
