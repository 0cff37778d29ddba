local tag, id, tenant, account, revision, at, event = unpack(ARGV, 1, 7)
local digest, hint, token, ends_at = unpack(ARGV, 8, 11)
local key = load(id)
if not key or not within(key, tenant, account) then
  return 'none'
end
if key[REVISION] ~= revision or key[REVOKED] ~= '' then
  return 'conflict'
end
if redis.call('HEXISTS', secrets, digest) == 1 then
  return 'taken'
end
if ends_at == '' then
  redis.call('HDEL', secrets, key[CURRENT])
else
  redis.call('HDEL', secrets, key[FORMER])
  key[FORMER] = key[CURRENT]
  key[RETIRING_HINT], key[RETIRING_ENDS] = key[HINT], ends_at
end
key[CURRENT], key[HINT], key[TOKEN], key[ROTATED] = digest, hint, token, at
key[REVISION] = following(revision)
save(id, key)
record(event)
feed(id, at, tag)
tell()
return 'done'
