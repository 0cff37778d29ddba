local id, from, tenant, account = unpack(ARGV)
local key = load(id)
local answer = {}
if key and within(key, tenant, account) then
  local members = redis.call('ZRANGEBYLEX', index, '[K' .. id .. from, '(K' .. id .. LAST)
  for _, member in ipairs(members) do
    answer[#answer + 1] = string.sub(member, -8)
    answer[#answer + 1] = redis.call('HGET', tallies, string.sub(member, 2))
  end
end
return answer
