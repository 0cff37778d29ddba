local mark, from = unpack(ARGV)
local state = redis.call('HMGET', meta, 'last', 'tag', 'gone', 'gone_tag')
local answer = { state[1] or '0', state[2] or '0', state[3] or '0', state[4] or '0', '', '', '' }
if mark ~= '' then
  local marked = redis.call('XRANGE', changes, mark, mark, 'COUNT', 1)
  answer[5] = marked[1] and marked[1][1] or ''
  local ids = {}
  for i, entry in ipairs(redis.call('XRANGE', changes, from, '+', 'COUNT', 1000)) do
    ids[i], answer[6] = entry[2][2], entry[1]
  end
  answer[7] = table.concat(ids)
end
return answer
