local tag, waits, id, tenant, account, at, event = unpack(ARGV)
local key = load(id)
if not key or not within(key, tenant, account) then
  barrier(waits)
  return 0
end
remove(id, key)
record(event)
feed(id, at, tag)
tell()
return 1
