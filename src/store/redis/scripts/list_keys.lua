local prefix, from, limit, status, now = unpack(ARGV)
local function is_wanted(packed)
  if status == '' then
    return true
  end
  local key = unpack_key(packed)
  if key[REVOKED] ~= '' then
    return status == 'revoked'
  elseif key[EXPIRES] ~= '' and not is_before(now, key[EXPIRES]) then
    return status == 'expired'
  elseif key[DISABLED] ~= '' then
    return status == 'disabled'
  end
  return status == 'active'
end
return page(index, from, prefix, limit, packed_key, is_wanted)
