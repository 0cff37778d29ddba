local id, from, tenant, account = unpack(ARGV)
local key = load_key(id)
local answer = {}
if key and is_within(key, tenant, account) then
  local members = redis.call('ZRANGEBYLEX', index, '[K' .. id .. from, '(K' .. id .. LAST)
  for _, member in ipairs(members) do
    answer[#answer + 1] = string.sub(member, -8)
    answer[#answer + 1] = redis.call('HGET', usage, string.sub(member, 2)) or corrupt('an index')
  end
end
return answer
