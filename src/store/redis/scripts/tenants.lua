-- From the first key of a tenant on to behind its last.
local from, limit = ARGV[1], tonumber(ARGV[2])
local found = {}
while #found < limit do
  local member = redis.call('ZRANGEBYLEX', index, from, '(U', 'LIMIT', 0, 1)[1]
  if not member then
    break
  end
  found[#found + 1] = load(string.sub(member, 18))[TENANT]
  from = '(' .. string.sub(member, 1, 17) .. LAST
end
return found
