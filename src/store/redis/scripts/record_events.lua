local added = 0
for _, event in ipairs(ARGV) do
  added = added + record_event(event)
end
return added
