local tag, id, tenant, account, revision, at, event = unpack(ARGV, 1, 7)
local key = load(id)
if not key or not within(key, tenant, account) then
  return 'none'
end
if key[REVISION] ~= revision or key[REVOKED] ~= '' then
  return 'conflict'
end
key[NAME], key[ACCESS], key[LIMITS], key[NETWORKS], key[METADATA], key[DISABLED] = unpack(ARGV, 8, 13)
key[REVISION] = following(revision)
save(id, key)
record(event)
feed(id, at, tag)
tell()
return 'done'
