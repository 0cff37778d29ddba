-- Jumps from the first key of a tenant past its last one.
local from, limit = ARGV[1], tonumber(ARGV[2])
local found = {}
while #found < limit do
  local member = redis.call('ZRANGEBYLEX', index, from, '(U', 'LIMIT', 0, 1)[1]
  if not member then
    break
  end
  local key = load_key(string.sub(member, 18)) or corrupt('an index')
  found[#found + 1] = key[TENANT]
  from = '(' .. string.sub(member, 1, 17) .. LAST
end
return found
