-- Of each charge: the counter's field, the start of its period, the latest start that a correct clock can have charged,
-- the limit, and the uses to charge.
local granted, windows, used = true, {}, {}
for i = 1, #ARGV, 5 do
  local n = #used + 1
  windows[n], used[n] = current_counter(ARGV[i], ARGV[i + 1], ARGV[i + 2])
  granted = granted and used[n] + tonumber(ARGV[i + 4]) <= tonumber(ARGV[i + 3])
end
local reply = { granted and '1' or '0' }
for n = 1, #used do
  local i = n * 5 - 4
  if granted then
    used[n] = used[n] + tonumber(ARGV[i + 4])
    set_counter(ARGV[i], windows[n], used[n])
  end
  reply[n + 1] = string.format('%.0f', used[n])
end
return reply
