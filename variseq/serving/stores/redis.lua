-- The scripts that change the keys of Redis; Redis runs each of them as one step.

-- script APPEND
-- ARGV: log, run that is expected ("" while the log is being pushed), limit, then for each event: user, number of
-- the user ("" for text), erasure marker of the user, event id, digest, timestamp, content.
-- Returns {"ok", accepted, duplicates, refused, ids of those accepted}, {"not filled"} or {"conflict", event id}.
local is_filling = ARGV[2] == ''
if not is_filling and redis.call('HGET', 'variseq:filled', ARGV[1]) ~= ARGV[2] then return {'not filled'} end
local limit, width = tonumber(ARGV[3]), 7
local function is_refused(at)
  local until_time = redis.call('HGET', 'variseq:erased', ARGV[at + 2])
  return until_time and tonumber(ARGV[at + 5]) <= tonumber(until_time)
end
for at = 4, #ARGV, width do
  local known = redis.call('HGET', 'variseq:ids', ARGV[at + 3])
  -- Nothing has been written yet, so that a conflict leaves nothing.
  if known and known ~= ARGV[at + 4] and not is_filling and not is_refused(at) then
    return {'conflict', ARGV[at + 3]}
  end
end
local accepted, duplicates, refused, changed, trimmed, ids = 0, 0, 0, {}, {}, {}
for at = 4, #ARGV, width do
  local user, timestamp = ARGV[at], ARGV[at + 5]
  if trimmed[user] == nil then trimmed[user] = tonumber(redis.call('HGET', 'variseq:trimmed', user) or '-inf') end
  if is_refused(at) then
    refused = refused + 1
  elseif redis.call('HEXISTS', 'variseq:ids', ARGV[at + 3]) == 1 then
    duplicates = duplicates + 1
  else
    accepted = accepted + 1
    ids[accepted] = ARGV[at + 3]
    if tonumber(timestamp) > trimmed[user] then
      local arrival = redis.call('INCR', 'variseq:clock')
      local length = string.format('%08.0f', #ARGV[at + 3])
      local member = string.format('%016.0f', arrival) .. length .. ARGV[at + 3] .. ARGV[at + 6]
      redis.call('ZADD', 'variseq:h:' .. user, timestamp, member)
      redis.call('HSET', 'variseq:ids', ARGV[at + 3], ARGV[at + 4])
      changed[user] = {arrival, ARGV[at + 1]}
    end
  end
end
for user, change in pairs(changed) do
  local excess = redis.call('ZCARD', 'variseq:h:' .. user) - limit
  if excess > 0 then
    local popped = redis.call('ZPOPMIN', 'variseq:h:' .. user, excess)
    for index = 1, #popped, 2 do
      local length = tonumber(string.sub(popped[index], 17, 24))
      redis.call('HDEL', 'variseq:ids', string.sub(popped[index], 25, 24 + length))
    end
    redis.call('HSET', 'variseq:trimmed', user, popped[#popped])
  end
  redis.call('HSET', 'variseq:versions', user, string.format('%.0f', change[1]))
  if change[2] == '' then
    redis.call('ZADD', 'variseq:users:s', 0, string.sub(user, 3))
  else
    redis.call('ZADD', 'variseq:users:i', change[2], string.sub(user, 3))
  end
end
return {'ok', accepted, duplicates, refused, ids}

-- script ERASE
-- ARGV: log, run that is expected, user, erasure marker of the user, time of the erasure, "all" or "until".
-- "all": also events that are dated after the erasure. Returns {"ok", number removed} or {"not filled"}.
if ARGV[2] ~= '' and redis.call('HGET', 'variseq:filled', ARGV[1]) ~= ARGV[2] then return {'not filled'} end
local user, key, until_time = ARGV[3], 'variseq:h:' .. ARGV[3], tonumber(ARGV[5])
local latest = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2]
if ARGV[6] == 'all' and latest and tonumber(latest) > until_time then until_time = tonumber(latest) end
local until_text = string.format('%.0f', until_time)
local removed = redis.call('ZRANGEBYSCORE', key, '-inf', until_text)
for _, member in ipairs(removed) do
  local length = tonumber(string.sub(member, 17, 24))
  redis.call('HDEL', 'variseq:ids', string.sub(member, 25, 24 + length))
end
redis.call('ZREMRANGEBYSCORE', key, '-inf', until_text)
if redis.call('ZCARD', key) > 0 then
  if #removed > 0 then
    redis.call('HSET', 'variseq:versions', user, string.format('%.0f', redis.call('INCR', 'variseq:clock')))
  end
else
  redis.call('HDEL', 'variseq:versions', user)
  redis.call('HDEL', 'variseq:trimmed', user)
  redis.call('ZREM', 'variseq:users:' .. string.sub(user, 1, 1), string.sub(user, 3))
end
local before = tonumber(redis.call('HGET', 'variseq:erased', ARGV[4]) or '-inf')
if until_time > before then
  redis.call('HSET', 'variseq:erased', ARGV[4], until_text)
  redis.call('INCR', 'variseq:erasures')
end
return {'ok', #removed}

-- script BEGIN_FILLING
-- ARGV: log, token of this filling, a new secret, now. Returns the secret that is in force.
-- The clock goes on from now: a Redis that lost its data must not give out versions again that it gave before.
redis.call('SET', 'variseq:secret', ARGV[3], 'NX')
if tonumber(redis.call('GET', 'variseq:clock') or '0') < tonumber(ARGV[4]) then
  redis.call('SET', 'variseq:clock', ARGV[4])
end
redis.call('SET', 'variseq:filling:' .. ARGV[1], ARGV[2])
return redis.call('GET', 'variseq:secret')

-- script TRIMMED
-- ARGV: user and time, repeated: up to when the log has trimmed that user's events, which stay out.
for at = 1, #ARGV, 2 do
  local known = tonumber(redis.call('HGET', 'variseq:trimmed', ARGV[at]) or '-inf')
  if tonumber(ARGV[at + 1]) > known then redis.call('HSET', 'variseq:trimmed', ARGV[at], ARGV[at + 1]) end
end

-- script END_FILLING
-- ARGV: log, token, run. Returns 1, or 0 when the data were lost again meanwhile.
if redis.call('GET', 'variseq:filling:' .. ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('DEL', 'variseq:filling:' .. ARGV[1])
redis.call('HSET', 'variseq:filled', ARGV[1], ARGV[3])
return 1
