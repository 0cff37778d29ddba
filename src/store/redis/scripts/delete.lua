local tag, waits, id, tenant, account, at, event = unpack(ARGV)
local key = load_key(id)
if not key or not is_within(key, tenant, account) then
  write_barrier(waits)
  return 0
end
delete_key(id, key)
record_event(event)
append_to_feed(id, at, tag)
notify()
return 1
