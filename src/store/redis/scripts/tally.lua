for i = 1, #ARGV, 5 do
  local id, hour = ARGV[i], ARGV[i + 1]
  if redis.call('HEXISTS', keys, id) == 1 then
    local sums = redis.call('HGET', tallies, id .. hour) or '0 0 0'
    local accepted, denied, limited = string.match(sums, '^(%d+) (%d+) (%d+)$')
    accepted, denied, limited = accepted + ARGV[i + 2], denied + ARGV[i + 3], limited + ARGV[i + 4]
    sums = string.format('%.0f %.0f %.0f', accepted, denied, limited)
    redis.call('HSET', tallies, id .. hour, sums)
    redis.call('ZADD', index, 0, 'K' .. id .. hour, 0, 'H' .. hour .. id)
  end
end
return 1
