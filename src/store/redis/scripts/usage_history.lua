local id, from, tenant, account = unpack(ARGV)
local key = load_key(id)
local reply = {}
if key and is_within(key, tenant, account) then
  local members = redis.call('ZRANGEBYLEX', index, '[K' .. id .. from, '(K' .. id .. LAST)
  for _, member in ipairs(members) do
    reply[#reply + 1] = string.sub(member, -8)
    reply[#reply + 1] = redis.call('HGET', usage, string.sub(member, 2)) or corrupt('an index')
  end
end
return reply
