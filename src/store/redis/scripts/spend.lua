-- Of each quota: its field, when its period began, how much there is, how much is to be spent.
local granted, used, windows = true, {}, {}
for i = 1, #ARGV, 4 do
  local n = #used + 1
  used[n], windows[n] = counted(ARGV[i], ARGV[i + 1])
  granted = granted and used[n] + tonumber(ARGV[i + 3]) <= tonumber(ARGV[i + 2])
end
local answer = { granted and '1' or '0' }
for n = 1, #used do
  local i = n * 4 - 3
  if granted then
    used[n] = used[n] + tonumber(ARGV[i + 3])
    count(ARGV[i], windows[n], used[n])
  end
  answer[n + 1] = string.format('%.0f', used[n])
end
return answer
