for _, event in ipairs(ARGV) do
  record_event(event)
end
return 1
