local tag, id, tenant, account, revision, at, event = unpack(ARGV, 1, 7)
local digest, hint, token, ends_at = unpack(ARGV, 8, 11)
local key = load_key(id)
if not key or not is_within(key, tenant, account) then
  return 'none'
end
if not is_unchanged(key, revision) then
  return 'conflict'
end
if ends_at == '' and key[SECRET_FIRST_USED] ~= '' then
  return 'used'
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
key[SECRET_FIRST_USED] = ''
key[REVISION] = increment(revision)
save_key(id, key)
record_event(event)
append_to_feed(id, at, tag)
notify()
return 'done'
