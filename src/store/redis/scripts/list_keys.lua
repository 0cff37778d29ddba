local prefix, from, limit, status, now = unpack(ARGV)
local function has_status(packed)
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
-- A damaged key is returned whatever its status is, so that it is reported and does not fail the whole page.
local function is_wanted(packed)
  if status == '' then
    return true
  end
  local is_readable, is_wanted = pcall(has_status, packed)
  return is_wanted or not is_readable
end
local function packed_or_empty(id)
  return packed_key(id) or ''
end
return page(index, from, prefix, limit, packed_or_empty, is_wanted)
