-- Loads every key before the first write; several uses of one key share its record.
local loaded = {}
for i, packed in ipairs(ARGV) do
  local id = cmsgpack.unpack(packed)[1]
  if loaded[id] == nil then
    loaded[id] = load_key(id)
  end
end
local first_uses = {}
for i, packed in ipairs(ARGV) do
  local id, tenant, account, first_at, last_at, ip, event, digest = unpack(cmsgpack.unpack(packed))
  local key = loaded[id]
  if key and is_within(key, tenant, account) then
    local is_first = key[FIRST_USED] == ''
    local is_first_of_secret = key[SECRET_FIRST_USED] == '' and key[CURRENT] == digest
    local is_latest = key[LAST_USED] == '' or is_before(key[LAST_USED], last_at)
    if is_first then
      key[FIRST_USED] = first_at
      record_event(event)
      first_uses[#first_uses + 1] = i - 1
    end
    if is_first_of_secret then
      key[SECRET_FIRST_USED] = first_at
    end
    if is_latest then
      key[LAST_USED], key[LAST_IP] = last_at, ip
    end
    if is_first or is_first_of_secret or is_latest then
      save_key(id, key)
    end
  end
end
return first_uses
