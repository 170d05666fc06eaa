-- Admits one call to Stripe, or says how long until it may ask again. All or nothing.
--
-- KEYS  global bucket, endpoint bucket, endpoint's list slots, object, reads of 30 days, waiting, endpoints
-- ARGV  one JSON object, see Shared._question
-- Returns {milliseconds to wait, what stands in the way}; {"0", ""} is admission.
--
-- A bucket counts by the generic cell rate algorithm: `tat` is the moment up to which its rate is
-- spent. A lane may spend ahead of now by its `reach`, a share of the burst: the lower the lane, the
-- sooner it runs dry. The last token of the burst belongs to the lanes' floors alone, so that a flood
-- above never starves a lane below. Nobody reaches beyond the burst: rate + burst <= Stripe's limit.

local ask = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000

local wait, why = 0, ''
local function hold(ms, reason)
  if ms > wait then wait, why = ms, reason end
end

local function text(value)
  return string.format('%.3f', value)
end

-- How far ahead of now a stored moment lies, at most *most*. A clock that stepped back must not leave
-- anything shut for as long as it stepped, so what lies further ahead is pulled in.
local function ahead(key, field, most)
  local left = (tonumber(redis.call('HGET', key, field) or '') or 0) - now
  if left > most then
    redis.call('HSET', key, field, text(now + most))
    return most
  end
  return math.max(left, 0)
end

local buckets = {}
for i, limit in ipairs({ask.account, ask.endpoint}) do
  local key, floor = KEYS[i], 'floor:' .. ask.lane
  local rate = math.min(tonumber(redis.call('HGET', key, 'rate') or '') or limit.rate, limit.rate)
  local cell = 1000 / rate
  local spent, owed = ahead(key, 'tat', limit.burst * cell), ahead(key, floor, cell / ask.floor)
  local reach = math.max(1, (limit.burst - 1) * ask.reach) * cell
  local short = spent + cell - reach
  local floor_short = math.max(spent + cell - limit.burst * cell, owed)
  local by_floor = short > 0 and floor_short <= short
  hold(by_floor and floor_short or short, 'rate')
  if not ask.probes then hold(ahead(key, 'cool', 1000), 'cooling') end
  buckets[i] = {key, 'tat', text(now + spent + cell)}
  if by_floor then
    buckets[i][4], buckets[i][5] = floor, text(now + cell / ask.floor)
  end
end

-- The breaker: shut after too many failures; from then on one call at a time tries whether it works.
local trying = redis.call('HEXISTS', KEYS[2], 'trying') == 1
if trying then
  hold(ahead(KEYS[2], 'trying', 1000), 'failing')
  if not ask.probes then hold(ahead(KEYS[2], 'shut', ask.pause), 'failing') end
end

if ask.slots then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
  redis.call('ZREMRANGEBYSCORE', KEYS[3], now + 2 * ask.lease, '+inf')
  if redis.call('ZCARD', KEYS[3]) >= ask.slots then hold(ask.poll, 'concurrency') end
end

if ask.object then
  hold(ahead(KEYS[4], 'paused', 60000), 'object')
  if ahead(KEYS[4], 'held', ask.lease) > 0 then hold(ask.poll, 'object') end
end

local day = math.floor(now / 86400000)
if ask.read and ask.reads then
  local read = 0
  local days = redis.call('HGETALL', KEYS[5])
  for i = 1, #days, 2 do
    if tonumber(days[i]) <= day - 30 then
      redis.call('HDEL', KEYS[5], days[i])
    else
      read = read + tonumber(days[i + 1])
    end
  end
  if read >= ask.reads then hold(60000, 'reads') end
end

local admitted = wait <= 0
local others = ask.waiting - (admitted and 1 or 0)
if others > 0 then
  redis.call('HSET', KEYS[6], ask.waiter, others .. '|' .. text(now + wait + 2000))
else
  redis.call('HDEL', KEYS[6], ask.waiter)
end
if not admitted then return {text(wait), why} end

for _, bucket in ipairs(buckets) do
  redis.call('HSET', unpack(bucket))
end
if trying then redis.call('HSET', KEYS[2], 'trying', text(now + 1000)) end
if ask.slots then redis.call('ZADD', KEYS[3], now + ask.lease, ask.permit) end
if ask.object then
  redis.call('HSET', KEYS[4], 'holder', ask.permit, 'held', text(now + ask.lease))
  redis.call('PEXPIRE', KEYS[4], 120000)
end
if ask.read then redis.call('HINCRBY', KEYS[5], day, 1) end
redis.call('SADD', KEYS[7], ask.name)
return {'0', ''}
