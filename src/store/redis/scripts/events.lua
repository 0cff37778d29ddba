local prefix, from, limit, tenant, account, kind, since, till = unpack(ARGV)
local function wanted(found)
  local event = cmsgpack.unpack(found)
  return event[4] == tenant and (account == '' or event[5] == account)
    and (kind == '' or event[2] == kind)
    and (since == '' or not before(event[1], since))
    and (till == '' or before(event[1], till))
end
return page(log, from, prefix, limit, event_of, wanted)
