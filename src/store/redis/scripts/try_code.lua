local address, presented, at = unpack(ARGV)
local digest, ends_at, tries = load_code(address)
if not digest then
  return 'none'
elseif tries == 0 then
  return 'no tries'
elseif digest ~= presented then
  redis.call('HSET', codes, address, digest .. ends_at .. string.format('%.0f', tries - 1))
  return 'wrong'
elseif not is_before(at, ends_at) then
  return 'expired'
end
delete_code(address, ends_at)
return 'accepted'
