#!lua
-- How many uses were none; then of each bucket its interval, and when it would have been full after
-- them: what time has given back already is not given back twice.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local uses = tonumber(ARGV[1])
for n, name in ipairs(KEYS) do
  local interval, granted = tonumber(ARGV[2 * n]), tonumber(ARGV[2 * n + 1])
  local still = math.min(uses * interval, granted - now)
  local bucket = redis.call('GET', name)
  if bucket and still > 0 then
    local full_at, counted = string.match(bucket, '^(%d+) (%d+)$')
    if tonumber(counted) == interval then
      local left = tonumber(full_at) - still - now
      if left > 0 then
        bucket = string.format('%.0f %.0f', now + left, interval)
        redis.call('SET', name, bucket, 'PX', math.ceil(left / 1000))
      else
        redis.call('DEL', name)
      end
    end
  end
end
return redis.status_reply('OK')
