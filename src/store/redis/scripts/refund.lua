-- Of each charge: the counter's field, the start of its period, and the uses to refund.
local used = {}
for i = 1, #ARGV, 3 do
  local window, stored = stored_counter(ARGV[i])
  -- A charge of another period is not refunded.
  used[i] = window == ARGV[i + 1] and stored or false
end
for i = 1, #ARGV, 3 do
  if used[i] then
    set_counter(ARGV[i], ARGV[i + 1], math.max(0, used[i] - tonumber(ARGV[i + 2])))
  end
end
return 1
