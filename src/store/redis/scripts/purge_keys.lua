local tag, before, at = unpack(ARGV, 1, 3)
local dead = {}
for i = 4, #ARGV, 2 do
  local key = load_key(ARGV[i])
  -- Another node may have purged or deleted the key since it was listed.
  if key and dead_since(key) ~= '' and is_before(dead_since(key), before) then
    dead[#dead + 1] = { ARGV[i], key, ARGV[i + 1] }
  end
end
local purged = {}
for n, found in ipairs(dead) do
  local id, key, event = unpack(found)
  delete_key(id, key)
  record_event(event)
  append_to_feed(id, at, tag)
  purged[n] = id
end
if #purged > 0 then
  notify()
end
return purged
