for i = 1, #ARGV, 3 do
  local stored = redis.call('HGET', quotas, ARGV[i])
  -- Nothing of another period.
  if stored and string.sub(stored, 1, 8) == ARGV[i + 1] then
    local used = tonumber(string.sub(stored, 9)) - tonumber(ARGV[i + 2])
    count(ARGV[i], ARGV[i + 1], math.max(0, used))
  end
end
return 1
