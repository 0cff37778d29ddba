local firsts = {}
for i, packed in ipairs(ARGV) do
  local id, tenant, account, first_at, last_at, ip, event = unpack(cmsgpack.unpack(packed))
  local key = load(id)
  if key and within(key, tenant, account) then
    local first = key[FIRST_USED] == ''
    local last = key[LAST_USED] == '' or before(key[LAST_USED], last_at)
    if first then
      key[FIRST_USED] = first_at
      record(event)
      firsts[#firsts + 1] = i - 1
    end
    if last then
      key[LAST_USED], key[LAST_IP] = last_at, ip
    end
    if first or last then
      save(id, key)
    end
  end
end
return firsts
