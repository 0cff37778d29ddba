local tag, waits, prefix, tenant, account, at, reason = unpack(ARGV, 1, 7)
-- An event of each key: the id but for its last four bytes and those as a number; the record and a
-- member of the log but for what each ends with; and members that end with the event's id.
local event, number, packed = unpack(ARGV, 8, 10)
number = tonumber(number)
local answer = {}
for _, member in ipairs(redis.call('ZRANGEBYLEX', index, '[' .. prefix, '(' .. prefix .. NEVER .. LAST)) do
  local id = string.sub(member, -16)
  local key = load(id)
  if within(key, tenant, account) then
    answer[#answer + 1] = id
    answer[#answer + 1] = cmsgpack.pack(key)
    revoke(id, key, at, reason)
    local own = event .. struct.pack('>I4', number)
    number = (number + 1) % 4294967296
    local members = { own, packed .. id, 'K' .. id .. own }
    for i = 11, #ARGV do
      members[#members + 1] = ARGV[i] .. own
    end
    record(cmsgpack.pack(members))
    feed(id, at, tag)
  end
end
if #answer > 0 then
  tell()
else
  barrier(waits)
end
return answer
