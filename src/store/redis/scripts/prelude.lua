local keys, secrets, index, audit_entries, audit_index, changes, meta, counters, usage, codes, audit = unpack(KEYS)

-- The fields of a key's record, in the order of `records.rs`.
local REVISION, TENANT, ACCOUNT, TENANT_HASH, OWNER_HASH, CURRENT, FORMER = 1, 2, 3, 4, 5, 6, 7
local EXPIRES, DISABLED, REVOKED, REASON, NAME, HINT = 8, 9, 10, 11, 12, 13
local ACCESS, LIMITS, NETWORKS, METADATA, CREATED = 14, 15, 16, 17, 18
local RETIRING_HINT, RETIRING_ENDS, ROTATED, TOKEN = 19, 20, 21, 22
local FIRST_USED, LAST_USED, LAST_IP, SECRET_FIRST_USED, ISSUE_TOKEN = 23, 24, 25, 26, 27
local FIELDS = 27

-- Sort after every instant, and after every identifier.
local NEVER, LAST = string.rep('\255', 8), string.rep('\255', 17)

-- Ends the script. A script must call this before its first write, so that it changes nothing.
local function corrupt(what)
  error({ err = 'CORRUPT ' .. what .. ' in Redis is damaged' })
end

-- Lua compares text in the server's locale, and its numbers have 53 bits only.
local function is_before(a, b)
  local a_high, a_low = struct.unpack('>I4I4', a)
  local b_high, b_low = struct.unpack('>I4I4', b)
  return a_high < b_high or (a_high == b_high and a_low < b_low)
end

-- Adds one to a number of eight bytes.
local function increment(number)
  local high, low = struct.unpack('>I4I4', number)
  low = low + 1
  if low == 4294967296 then
    high, low = high + 1, 0
  end
  return struct.pack('>I4I4', high, low)
end

-- Keys. Each digest of a key leads to the key's id followed by its record, so that a lookup is one HGET.

local function packed_key(id)
  local digest = redis.call('HGET', keys, id)
  local found = digest and redis.call('HGET', secrets, digest)
  return found and string.sub(found, 17)
end

-- Returns nothing if the record is damaged.
local function readable_key(packed)
  local is_valid, key = pcall(cmsgpack.unpack, packed)
  if is_valid and type(key) == 'table' and #key == FIELDS then
    return key
  end
end

local function unpack_key(packed)
  return readable_key(packed) or corrupt('a key')
end

local function load_key(id)
  local packed = packed_key(id)
  return packed and unpack_key(packed)
end

local function save_key(id, key)
  local record = id .. cmsgpack.pack(key)
  redis.call('HSET', keys, id, key[CURRENT])
  redis.call('HSET', secrets, key[CURRENT], record)
  if key[FORMER] ~= '' then
    redis.call('HSET', secrets, key[FORMER], record)
  end
end

-- An empty account means all accounts of the tenant.
local function is_within(key, tenant, account)
  return key[TENANT] == tenant and (account == '' or key[ACCOUNT] == account)
end

-- Whether a key has the revision that was read and is not revoked.
local function is_unchanged(key, revision)
  if key[REVOKED] == '' and key[REASON] ~= '' then
    corrupt('the revocation of a key')
  end
  return key[REVISION] == revision and key[REVOKED] == ''
end

-- The earlier of revocation and expiry; empty if the key has neither.
local function dead_since(key)
  local revoked, expires = key[REVOKED], key[EXPIRES]
  if revoked == '' then
    return expires
  end
  return (expires ~= '' and is_before(expires, revoked)) and expires or revoked
end

local function unrevoked_member(id, key)
  return 'L' .. key[OWNER_HASH] .. (key[EXPIRES] ~= '' and key[EXPIRES] or NEVER) .. id
end

-- Begins the members of the keys that an owner's calls with one token issued.
local function token_prefix(key)
  return 'I' .. key[OWNER_HASH] .. key[ISSUE_TOKEN]
end

local function revoke_key(id, key, at, reason)
  redis.call('ZREM', index, unrevoked_member(id, key), 'D' .. dead_since(key) .. id)
  key[REVOKED], key[REASON] = at, reason
  key[REVISION] = increment(key[REVISION])
  redis.call('ZADD', index, 0, 'D' .. dead_since(key) .. id)
  save_key(id, key)
end

-- Walks an index downwards from a member and returns the entries that `is_wanted` accepts, after the
-- member from which to continue (empty at the end). One call visits at most 1000 members, so that a
-- long walk does not block other clients.
local function page(set, from, prefix, limit, load, is_wanted)
  local members = redis.call('ZREVRANGEBYLEX', set, from, '[' .. prefix, 'LIMIT', 0, 1000)
  local reply = { #members == 1000 and members[1000] or '' }
  limit = tonumber(limit)
  for _, member in ipairs(members) do
    local id = string.sub(member, -16)
    local found = load(id)
    if not found then
      corrupt('an index')
    end
    if is_wanted(found) then
      reply[#reply + 1] = id
      reply[#reply + 1] = found
      limit = limit - 1
      if limit == 0 then
        reply[1] = ''
        break
      end
    end
  end
  return reply
end

-- The audit log. An event is packed as its id, its record, and its members of the index.

-- Writes an event; an id that exists is skipped. Returns the number of events written.
local function record_event(packed)
  local event = cmsgpack.unpack(packed)
  if redis.call('HEXISTS', audit_entries, event[1]) == 1 then
    return 0
  end
  local entry = redis.call('XADD', audit, '*', 'i', event[1], 'e', event[2])
  redis.call('HSET', audit_entries, event[1], entry)
  for i = 3, #event do
    redis.call('ZADD', audit_index, 0, event[i])
  end
  return 1
end

local function event_record(id)
  local entry = redis.call('HGET', audit_entries, id)
  local found = entry and redis.call('XRANGE', audit, entry, entry)[1]
  return found and found[2][4]
end

-- The change feed.

-- After a failover or a restored backup, the random tag distinguishes a new entry from the lost entry
-- that had the same number.
local function append_to_feed(id, at, tag)
  local number = redis.call('HINCRBY', meta, 'last_number', 1)
  redis.call('HSET', meta, 'last_tag', tag)
  redis.call('XADD', changes, string.format('%.0f-%s', number, tag), 'k', id, 'a', at)
end

-- Wakes the listeners of the feed. A user without permission to publish must not fail the change:
-- other nodes then poll.
local function notify()
  redis.pcall('PUBLISH', changes, '')
end

-- A repeated revocation may find a change that was never confirmed by replicas. WAIT only waits for
-- writes of its own connection, so this writes something.
local function write_barrier(waits)
  if waits == '1' then
    redis.call('HINCRBY', meta, 'barrier', 1)
  end
end

-- Counters of quotas. A counter is the start of its period in eight bytes, then the uses as decimal text,
-- which are below 2^53.

-- Returns start and uses of a stored counter; nothing if there is none.
local function stored_counter(field)
  local stored = redis.call('HGET', counters, field)
  if not stored then
    return
  end
  local digits = string.match(string.sub(stored, 9), '^%d+$')
  if not digits then
    corrupt('a counter')
  end
  return string.sub(stored, 1, 8), tonumber(digits)
end

-- Returns start and uses of a counter for a charge. A new period starts at 0, and no period returns. A period after the
-- latest one that a correct clock can have charged is not kept.
local function current_counter(field, window, latest_window)
  local stored_window, used = stored_counter(field)
  if not stored_window or is_before(stored_window, window) or is_before(latest_window, stored_window) then
    return window, 0
  end
  return stored_window, used
end

local function set_counter(field, window, used)
  -- Counters of anonymous callers (kind 3) are indexed by age, so that they can be purged.
  if string.byte(field) == 3 then
    local stored_window = stored_counter(field)
    if stored_window then
      redis.call('ZREM', index, 'G' .. stored_window .. field)
    end
    redis.call('ZADD', index, 0, 'G' .. window .. field)
  end
  redis.call('HSET', counters, field, window .. string.format('%.0f', used))
end

-- One-time codes. A code is its digest in 35 bytes, its end in eight, then the tries left as decimal text.

local function load_code(address)
  local stored = redis.call('HGET', codes, address)
  if not stored then
    return
  end
  local tries = string.match(string.sub(stored, 44), '^%d+$')
  if not tries then
    corrupt('a one-time code')
  end
  return string.sub(stored, 1, 35), string.sub(stored, 36, 43), tonumber(tries)
end

local function delete_code(address, ends_at)
  redis.call('HDEL', codes, address)
  redis.call('ZREM', index, 'C' .. ends_at .. address)
end

-- Hourly usage: how often a key was accepted, denied and limited, as decimal text.

local function load_hour(id, hour)
  local counts = redis.call('HGET', usage, id .. hour) or '0 0 0'
  local accepted, denied, limited = string.match(counts, '^(%d+) (%d+) (%d+)$')
  if not accepted then
    corrupt('the usage of a key')
  end
  return tonumber(accepted), tonumber(denied), tonumber(limited)
end

local function delete_hour(id, hour)
  redis.call('HDEL', usage, id .. hour)
  redis.call('ZREM', index, 'K' .. id .. hour, 'H' .. hour .. id)
end

-- Deletes a key with its secrets, usage and counters.
local function delete_key(id, key)
  for _, member in ipairs(redis.call('ZRANGEBYLEX', index, '[K' .. id, '(K' .. id .. LAST)) do
    delete_hour(id, string.sub(member, -8))
  end
  local counter = '\0' .. id
  redis.call('HDEL', counters, counter .. 'ever', counter .. 'day', counter .. 'month')
  redis.call('HDEL', keys, id)
  redis.call('HDEL', secrets, key[CURRENT], key[FORMER])
  redis.call('ZREM', index, unrevoked_member(id, key), 'D' .. dead_since(key) .. id,
    'O' .. key[OWNER_HASH] .. id, 'T' .. key[TENANT_HASH] .. id, token_prefix(key) .. id)
end
