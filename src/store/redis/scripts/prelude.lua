local keys, secrets, index, events, log, changes, meta, quotas, tallies, codes, audit = unpack(KEYS)

-- The fields of a key's record, as `rows.rs` packs them.
local REVISION, TENANT, ACCOUNT, TENANT_SCOPE, OWNER_SCOPE, CURRENT, FORMER = 1, 2, 3, 4, 5, 6, 7
local EXPIRES, DISABLED, REVOKED, REASON, NAME, HINT = 8, 9, 10, 11, 12, 13
local ACCESS, LIMITS, NETWORKS, METADATA = 14, 15, 16, 17
local RETIRING_HINT, RETIRING_ENDS, ROTATED, TOKEN = 19, 20, 21, 22
local FIRST_USED, LAST_USED, LAST_IP = 23, 24, 25

local NEVER, LAST = string.rep('\255', 8), string.rep('\255', 17)

-- A key's record, behind its id, lies under each of its digests: so one HGET finds it.
local function packed(id)
  local digest = redis.call('HGET', keys, id)
  local found = digest and redis.call('HGET', secrets, digest)
  return found and string.sub(found, 17)
end

local function load(id)
  local record = packed(id)
  return record and cmsgpack.unpack(record)
end

local function save(id, key)
  local record = id .. cmsgpack.pack(key)
  redis.call('HSET', keys, id, key[CURRENT])
  redis.call('HSET', secrets, key[CURRENT], record)
  if key[FORMER] ~= '' then
    redis.call('HSET', secrets, key[FORMER], record)
  end
end

-- Without an account, all of a tenant is meant.
local function within(key, tenant, account)
  return key[TENANT] == tenant and (account == '' or key[ACCOUNT] == account)
end

-- Lua compares text as the server's locale does, and its numbers hold 53 bits only.
local function before(a, b)
  local a_high, a_low = struct.unpack('>I4I4', a)
  local b_high, b_low = struct.unpack('>I4I4', b)
  return a_high < b_high or (a_high == b_high and a_low < b_low)
end

local function following(number)
  local high, low = struct.unpack('>I4I4', number)
  low = low + 1
  if low == 4294967296 then
    high, low = high + 1, 0
  end
  return struct.pack('>I4I4', high, low)
end

-- What is wanted of a walk back from a member, behind the member to go on from, if there is more.
-- So many at a time, that a long walk in search of few holds up nobody else.
local function page(set, from, prefix, limit, load, wanted)
  local members = redis.call('ZREVRANGEBYLEX', set, from, '[' .. prefix, 'LIMIT', 0, 1000)
  local answer = { #members == 1000 and members[1000] or '' }
  limit = tonumber(limit)
  for _, member in ipairs(members) do
    local id = string.sub(member, -16)
    local found = load(id)
    if wanted(found) then
      answer[#answer + 1] = id
      answer[#answer + 1] = found
      limit = limit - 1
      if limit == 0 then
        answer[1] = ''
        break
      end
    end
  end
  return answer
end

local function dead_since(key)
  local revoked, expires = key[REVOKED], key[EXPIRES]
  if revoked == '' then
    return expires
  end
  return (expires ~= '' and before(expires, revoked)) and expires or revoked
end

local function unrevoked_member(id, key)
  return 'L' .. key[OWNER_SCOPE] .. (key[EXPIRES] ~= '' and key[EXPIRES] or NEVER) .. id
end

-- An event is its id, its record, and its members of the log. An id that exists is passed over.
local function record(packed)
  local event = cmsgpack.unpack(packed)
  if redis.call('HEXISTS', events, event[1]) == 0 then
    local entry = redis.call('XADD', audit, '*', 'i', event[1], 'e', event[2])
    redis.call('HSET', events, event[1], entry)
    for i = 3, #event do
      redis.call('ZADD', log, 0, event[i])
    end
  end
end

local function event_of(id)
  local entry = redis.call('HGET', events, id)
  return redis.call('XRANGE', audit, entry, entry)[1][2][4]
end

-- The tag tells entries of the same number apart that were written in two lives of the store.
local function feed(id, at, tag)
  local number = redis.call('HINCRBY', meta, 'last', 1)
  redis.call('HSET', meta, 'tag', tag)
  redis.call('XADD', changes, string.format('%.0f-%s', number, tag), 'k', id, 'a', at)
end

-- Whoever may not publish has others look by themselves: what was written stays as good as it is.
local function tell()
  redis.pcall('PUBLISH', changes, '')
end

-- What a repeated revocation finds done was perhaps never confirmed: WAIT waits for what was
-- written on its own connection, so something has to be.
local function barrier(waits)
  if waits == '1' then
    redis.call('HINCRBY', meta, 'barrier', 1)
  end
end

local function revoke(id, key, at, reason)
  redis.call('ZREM', index, unrevoked_member(id, key), 'D' .. dead_since(key) .. id)
  key[REVOKED], key[REASON] = at, reason
  key[REVISION] = following(key[REVISION])
  redis.call('ZADD', index, 0, 'D' .. dead_since(key) .. id)
  save(id, key)
end

-- How much of a quota is spent, and in which period: one that is over begins anew, and none comes
-- back. Quotas end below 2^53.
local function counted(field, window)
  local stored = redis.call('HGET', quotas, field)
  if not stored or before(string.sub(stored, 1, 8), window) then
    return 0, window
  end
  return tonumber(string.sub(stored, 9)), string.sub(stored, 1, 8)
end

-- What guests have spent is found again by its age, to be removed.
local function date(field, window)
  if string.byte(field) == 3 then
    local stored = redis.call('HGET', quotas, field)
    if stored then
      redis.call('ZREM', index, 'G' .. string.sub(stored, 1, 8) .. field)
    end
    redis.call('ZADD', index, 0, 'G' .. window .. field)
  end
end

local function count(field, window, used)
  date(field, window)
  redis.call('HSET', quotas, field, window .. string.format('%.0f', used))
end

-- A code is its digest, when it ends, and how many tries are left.
local function code_of(address)
  local stored = redis.call('HGET', codes, address)
  if stored then
    return string.sub(stored, 1, 35), string.sub(stored, 36, 43), tonumber(string.sub(stored, 44))
  end
end

local function forget_code(address, ends_at)
  redis.call('HDEL', codes, address)
  redis.call('ZREM', index, 'C' .. ends_at .. address)
end

local function forget_hour(id, hour)
  redis.call('HDEL', tallies, id .. hour)
  redis.call('ZREM', index, 'K' .. id .. hour, 'H' .. hour .. id)
end

local function remove(id, key)
  for _, member in ipairs(redis.call('ZRANGEBYLEX', index, '[K' .. id, '(K' .. id .. LAST)) do
    forget_hour(id, string.sub(member, -8))
  end
  local payer = '\0' .. id
  redis.call('HDEL', quotas, payer .. 'ever', payer .. 'day', payer .. 'month')
  redis.call('HDEL', keys, id)
  redis.call('HDEL', secrets, key[CURRENT], key[FORMER])
  redis.call('ZREM', index, unrevoked_member(id, key), 'D' .. dead_since(key) .. id,
    'O' .. key[OWNER_SCOPE] .. id, 'T' .. key[TENANT_SCOPE] .. id)
end
