local prefix, from, limit, status, now = unpack(ARGV)
local function has(key)
  if key[REVOKED] ~= '' then
    return status == 'revoked'
  elseif key[EXPIRES] ~= '' and not before(now, key[EXPIRES]) then
    return status == 'expired'
  elseif key[DISABLED] ~= '' then
    return status == 'disabled'
  end
  return status == 'active'
end
-- So many at a time, that a long walk in search of few holds up nobody else.
local members = redis.call('ZREVRANGEBYLEX', index, from, '[' .. prefix, 'LIMIT', 0, 1000)
local answer = { #members == 1000 and members[1000] or '' }
limit = tonumber(limit)
for _, member in ipairs(members) do
  local id = string.sub(member, -16)
  local record = packed(id)
  if status == '' or has(cmsgpack.unpack(record)) then
    answer[#answer + 1] = id
    answer[#answer + 1] = record
    limit = limit - 1
    if limit == 0 then
      answer[1] = ''
      break
    end
  end
end
return answer
