#!lua
-- KEYS: the buckets. ARGV: the number of uses to refund, then for each bucket its interval and the time at which it
-- was to be full after the charge, in microseconds. What has been regained by time since is not refunded again.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local uses = tonumber(ARGV[1])
for n, name in ipairs(KEYS) do
  local interval, charged_until = tonumber(ARGV[2 * n]), tonumber(ARGV[2 * n + 1])
  local refund = math.min(uses * interval, charged_until - now)
  local bucket = redis.call('GET', name)
  if bucket and refund > 0 then
    local full_at, charged_interval = string.match(bucket, '^(%d+) (%d+)$')
    if tonumber(charged_interval) == interval then
      local left = tonumber(full_at) - refund - now
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
