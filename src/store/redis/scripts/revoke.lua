local tag, waits, id, tenant, account, at, reason, event = unpack(ARGV)
local key = load(id)
if not key or not within(key, tenant, account) then
  barrier(waits)
  return 'none'
end
if key[REVOKED] ~= '' then
  barrier(waits)
  return 'already'
end
revoke(id, key, at, reason)
record(event)
feed(id, at, tag)
tell()
return 'done'
