local tag, waits, prefix, tenant, account, at, reason = unpack(ARGV, 1, 7)
-- Each key gets an event. Its id is `event` and a number of four bytes; its record is `packed` and the
-- key's id; its members of the index are the arguments from 11 on, each followed by the event's id.
local event, number, packed = unpack(ARGV, 8, 10)
number = tonumber(number)
-- A key whose record is damaged does not work, and must not stop the revocation of the others.
local function can_be_revoked(key)
  local expires = key[EXPIRES]
  return key[REVOKED] == '' and is_within(key, tenant, account) and type(key[REVISION]) == 'string' and #key[REVISION] == 8
    and type(expires) == 'string' and (expires == '' or #expires == 8)
end
local unrevoked = {}
for _, member in ipairs(redis.call('ZRANGEBYLEX', index, '[' .. prefix, '(' .. prefix .. NEVER .. LAST)) do
  local id = string.sub(member, -16)
  local packed = packed_key(id)
  local key = packed and readable_key(packed)
  if key and can_be_revoked(key) then
    unrevoked[#unrevoked + 1] = { id, key }
  end
end
local reply = {}
for _, found in ipairs(unrevoked) do
  local id, key = unpack(found)
  reply[#reply + 1] = id
  revoke_key(id, key, at, reason)
  local event_id = event .. struct.pack('>I4', number)
  number = (number + 1) % 4294967296
  local fields = { event_id, packed .. id, 'K' .. id .. event_id }
  for i = 11, #ARGV do
    fields[#fields + 1] = ARGV[i] .. event_id
  end
  record_event(cmsgpack.pack(fields))
  append_to_feed(id, at, tag)
end
if #reply > 0 then
  notify()
else
  write_barrier(waits)
end
return reply
