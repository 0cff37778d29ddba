local tag, before_it, at = unpack(ARGV, 1, 3)
local removed = {}
for i = 4, #ARGV, 2 do
  local id = ARGV[i]
  local key = load(id)
  -- Meanwhile, another may have purged or deleted it.
  if key and dead_since(key) ~= '' and before(dead_since(key), before_it) then
    remove(id, key)
    record(ARGV[i + 1])
    feed(id, at, tag)
    removed[#removed + 1] = id
  end
end
if #removed > 0 then
  tell()
end
return removed
