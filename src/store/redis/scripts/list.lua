local prefix, from, limit, status, now = unpack(ARGV)
local function wanted(found)
  if status == '' then
    return true
  end
  local key = cmsgpack.unpack(found)
  if key[REVOKED] ~= '' then
    return status == 'revoked'
  elseif key[EXPIRES] ~= '' and not before(now, key[EXPIRES]) then
    return status == 'expired'
  elseif key[DISABLED] ~= '' then
    return status == 'disabled'
  end
  return status == 'active'
end
return page(index, from, prefix, limit, packed, wanted)
