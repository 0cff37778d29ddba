-- Of each hour: the key's id, the start of the hour, and how often it was accepted, denied and limited.
for i = 1, #ARGV, 5 do
  load_hour(ARGV[i], ARGV[i + 1])
end
for i = 1, #ARGV, 5 do
  local id, hour = ARGV[i], ARGV[i + 1]
  if redis.call('HEXISTS', keys, id) == 1 then
    local accepted, denied, limited = load_hour(id, hour)
    accepted, denied, limited = accepted + ARGV[i + 2], denied + ARGV[i + 3], limited + ARGV[i + 4]
    redis.call('HSET', usage, id .. hour, string.format('%.0f %.0f %.0f', accepted, denied, limited))
    redis.call('ZADD', index, 0, 'K' .. id .. hour, 0, 'H' .. hour .. id)
  end
end
return 1
