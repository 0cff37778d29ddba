local prefix, from, limit, tenant, account, kind, since, before = unpack(ARGV)
local function is_wanted(found)
  local is_valid, event = pcall(cmsgpack.unpack, found)
  if not is_valid or type(event) ~= 'table' then
    corrupt('an event')
  end
  return event[4] == tenant and (account == '' or event[5] == account)
    and (kind == '' or event[2] == kind)
    and (since == '' or not is_before(event[1], since))
    and (before == '' or is_before(event[1], before))
end
return page(audit_index, from, prefix, limit, event_record, is_wanted)
