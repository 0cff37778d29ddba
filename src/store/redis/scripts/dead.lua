local before_it, limit = unpack(ARGV)
local answer = {}
for _, member in ipairs(redis.call('ZRANGEBYLEX', index, '[D', '(D' .. before_it, 'LIMIT', 0, limit)) do
  local id = string.sub(member, -16)
  answer[#answer + 1] = id
  answer[#answer + 1] = packed(id)
end
return answer
