local removed, last = 0, nil
for _, entry in ipairs(redis.call('XRANGE', changes, '-', '+', 'COUNT', 1000)) do
  if not before(entry[2][4], ARGV[1]) then
    break
  end
  removed, last = removed + 1, entry[1]
  redis.call('XDEL', changes, last)
end
if last then
  local number, tag = string.match(last, '^(%d+)%-(%d+)$')
  redis.call('HSET', meta, 'gone', number, 'gone_tag', tag)
end
return removed
