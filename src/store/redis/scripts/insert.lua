local tag, id, digest, packed, at, event = unpack(ARGV, 1, 6)
local max, first_live, last_live, token_since = unpack(ARGV, 7, 10)
local new = unpack_key(packed)
if new[ISSUE_TOKEN] ~= '' then
  local prefix = token_prefix(new)
  local newest = redis.call('ZREVRANGEBYLEX', index, '(' .. prefix .. LAST, '[' .. prefix, 'LIMIT', 0, 1)[1]
  if newest then
    local newest_id = string.sub(newest, -16)
    local found = load_key(newest_id)
    if not found then
      corrupt('an index')
    end
    if is_within(found, new[TENANT], new[ACCOUNT]) and not is_before(found[CREATED], token_since) then
      return 'token' .. newest_id
    end
  end
end
if redis.call('HEXISTS', keys, id) == 1 or redis.call('HEXISTS', secrets, digest) == 1 then
  return 'taken'
end
if max ~= '' and redis.call('ZLEXCOUNT', index, first_live, last_live) >= tonumber(max) then
  return 'limit'
end
redis.call('HSET', keys, id, digest)
redis.call('HSET', secrets, digest, id .. packed)
for i = 11, #ARGV do
  redis.call('ZADD', index, 0, ARGV[i])
end
record_event(event)
append_to_feed(id, at, tag)
notify()
return 'done'
