local tag, waits, id, tenant, account, at, reason, event = unpack(ARGV)
local key = load_key(id)
if not key or not is_within(key, tenant, account) then
  write_barrier(waits)
  return 'none'
end
if key[REVOKED] ~= '' then
  write_barrier(waits)
  return 'already'
end
revoke_key(id, key, at, reason)
record_event(event)
append_to_feed(id, at, tag)
notify()
return 'done'
