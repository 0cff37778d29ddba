local purged, last = 0, nil
for _, entry in ipairs(redis.call('XRANGE', changes, '-', '+', 'COUNT', 1000)) do
  if not is_before(entry[2][4], ARGV[1]) then
    break
  end
  purged, last = purged + 1, entry[1]
  redis.call('XDEL', changes, last)
end
if last then
  local number, tag = string.match(last, '^(%d+)%-(%d+)$')
  redis.call('HSET', meta, 'purged_number', number, 'purged_tag', tag)
end
return purged
