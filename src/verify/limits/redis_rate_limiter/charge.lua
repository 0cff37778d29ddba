#!lua
-- The same arithmetic as `gcra.rs`. A bucket is stored as the time at which it is full again and the interval by
-- which it was charged. A full bucket is not stored: its key expires.
-- KEYS: the buckets. ARGV: the maximum and the minimum number of uses to charge, then the interval and the reach of
-- each bucket. All times are in microseconds.
-- Returns the number of charged uses, or -1 if fewer than the minimum are left; the server's time; then the time at
-- which each bucket is full.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local uses, min_uses = tonumber(ARGV[1]), tonumber(ARGV[2])
local ahead, converted = {}, {}
for n, name in ipairs(KEYS) do
  local interval, reach = tonumber(ARGV[2 * n + 1]), tonumber(ARGV[2 * n + 2])
  local bucket, ahead_of_now = redis.call('GET', name), 0
  if bucket then
    local full_at, charged_by = string.match(bucket, '^(%d+) (%d+)$')
    ahead_of_now = math.max(tonumber(full_at) - now, 0)
    local charged_interval = tonumber(charged_by)
    if charged_interval ~= interval then
      -- The rate has changed: the same number of uses stays charged.
      ahead_of_now = math.floor(ahead_of_now * interval / charged_interval)
      converted[n] = true
    end
  end
  ahead[n] = math.min(ahead_of_now, reach)
  uses = math.min(uses, math.floor((reach - ahead[n]) / interval))
end
if uses < min_uses then
  uses = -1
end
local reply = { string.format('%.0f', uses), string.format('%.0f', now) }
for n, name in ipairs(KEYS) do
  local interval = tonumber(ARGV[2 * n + 1])
  if uses > 0 then
    ahead[n] = ahead[n] + uses * interval
  end
  if ahead[n] > 0 and (uses > 0 or converted[n]) then
    local bucket = string.format('%.0f %.0f', now + ahead[n], interval)
    redis.call('SET', name, bucket, 'PX', math.ceil(ahead[n] / 1000))
  elseif converted[n] then
    redis.call('DEL', name)
  end
  reply[n + 2] = string.format('%.0f', now + ahead[n])
end
return reply
