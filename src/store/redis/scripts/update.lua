local tag, id, tenant, account, revision, at, event = unpack(ARGV, 1, 7)
local key = load_key(id)
if not key or not is_within(key, tenant, account) then
  return 'none'
end
if not is_unchanged(key, revision) then
  return 'conflict'
end
key[NAME], key[ACCESS], key[LIMITS], key[NETWORKS], key[METADATA], key[DISABLED] = unpack(ARGV, 8, 13)
key[REVISION] = increment(revision)
save_key(id, key)
record_event(event)
append_to_feed(id, at, tag)
notify()
return 'done'
