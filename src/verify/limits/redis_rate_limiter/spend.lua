#!lua
-- `gcra.rs` once more, word for word: what is remembered of a bucket is when it will be full, and
-- the interval in which that was counted. A bucket that is full again is none, and expires.
-- How many uses are wanted, and how many at least; then of each bucket its interval and its reach.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local uses, least = tonumber(ARGV[1]), tonumber(ARGV[2])
local ahead, converted = {}, {}
for n, name in ipairs(KEYS) do
  local interval, reach = tonumber(ARGV[2 * n + 1]), tonumber(ARGV[2 * n + 2])
  local bucket, far = redis.call('GET', name), 0
  if bucket then
    local full_at, counted = string.match(bucket, '^(%d+) (%d+)$')
    far, counted = math.max(tonumber(full_at) - now, 0), tonumber(counted)
    if counted ~= interval then
      -- Another plan: the same number of uses counts.
      far, converted[n] = math.floor(far * interval / counted), true
    end
  end
  ahead[n] = math.min(far, reach)
  uses = math.min(uses, math.floor((reach - ahead[n]) / interval))
end
if uses < least then
  uses = -1
end
local answer = { string.format('%.0f', uses), string.format('%.0f', now) }
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
  answer[n + 2] = string.format('%.0f', now + ahead[n])
end
return answer
