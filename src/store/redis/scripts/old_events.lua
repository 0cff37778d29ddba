local before_it, limit = unpack(ARGV)
local answer = {}
for _, member in ipairs(redis.call('ZRANGEBYLEX', log, '[A', '(A' .. before_it, 'LIMIT', 0, limit)) do
  local id = string.sub(member, -16)
  answer[#answer + 1] = id
  answer[#answer + 1] = event_of(id)
end
return answer
