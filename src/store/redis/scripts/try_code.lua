local address, presented, at = unpack(ARGV)
local digest, ends_at, tries = code_of(address)
if not digest then
  return 'none'
elseif tries == 0 then
  return 'spent'
elseif digest ~= presented then
  redis.call('HSET', codes, address, digest .. ends_at .. string.format('%.0f', tries - 1))
  return 'wrong'
elseif not before(at, ends_at) then
  return 'late'
end
forget_code(address, ends_at)
return 'right'
