local address, digest, ends_at, tries = unpack(ARGV)
local _, replaced_end = load_code(address)
if replaced_end then
  delete_code(address, replaced_end)
end
redis.call('HSET', codes, address, digest .. ends_at .. tries)
redis.call('ZADD', index, 0, 'C' .. ends_at .. address)
return 1
