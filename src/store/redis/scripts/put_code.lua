local address, digest, ends_at, tries = unpack(ARGV)
local _, former_end = code_of(address)
if former_end then
  forget_code(address, former_end)
end
redis.call('HSET', codes, address, digest .. ends_at .. tries)
redis.call('ZADD', index, 0, 'C' .. ends_at .. address)
return 1
