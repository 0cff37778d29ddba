local prefix, from, limit, tenant, account, kind, since, till = unpack(ARGV)
local function wanted(event)
  return event[4] == tenant and (account == '' or event[5] == account)
    and (kind == '' or event[2] == kind)
    and (since == '' or not before(event[1], since))
    and (till == '' or before(event[1], till))
end
local members = redis.call('ZREVRANGEBYLEX', log, from, '[' .. prefix, 'LIMIT', 0, 1000)
local answer = { #members == 1000 and members[1000] or '' }
limit = tonumber(limit)
for _, member in ipairs(members) do
  local id = string.sub(member, -16)
  local packed = redis.call('HGET', events, id)
  if wanted(cmsgpack.unpack(packed)) then
    answer[#answer + 1] = id
    answer[#answer + 1] = packed
    limit = limit - 1
    if limit == 0 then
      answer[1] = ''
      break
    end
  end
end
return answer
