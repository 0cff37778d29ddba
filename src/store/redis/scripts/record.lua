for _, event in ipairs(ARGV) do
  record(event)
end
return 1
