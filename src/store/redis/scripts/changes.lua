-- The last position, the last purged position, the entry at the reader's position, the last entry
-- returned, and the ids of the keys of the entries after the reader's position.
local reader, from = unpack(ARGV)
local positions = redis.call('HMGET', meta, 'last_number', 'last_tag', 'purged_number', 'purged_tag')
local reply = { positions[1] or '0', positions[2] or '0', positions[3] or '0', positions[4] or '0', '', '', '' }
if reader ~= '' then
  local found = redis.call('XRANGE', changes, reader, reader, 'COUNT', 1)
  reply[5] = found[1] and found[1][1] or ''
  local ids = {}
  for i, entry in ipairs(redis.call('XRANGE', changes, from, '+', 'COUNT', 1000)) do
    ids[i], reply[6] = entry[2][2], entry[1]
  end
  reply[7] = table.concat(ids)
end
return reply
