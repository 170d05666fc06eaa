-- Admits one call to Stripe, or says how long until it may ask again. All or nothing.
--
-- KEYS  global bucket, endpoint bucket, endpoint's list slots, object, reads of 30 days, waiting, endpoints
-- ARGV  one JSON object, see Budget._ask
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

local function number(key, field)
  return tonumber(redis.call('HGET', key, field) or '')
end

-- A clock that stepped back must not leave a bucket shut: nothing lies further ahead than *most*.
local function ahead(moment, most)
  return math.min(math.max((moment or 0) - now, 0), most)
end

local function text(value)
  return string.format('%.3f', value)
end

local buckets = {}
for i, limit in ipairs({ask.account, ask.endpoint}) do
  local key = KEYS[i]
  local known = redis.call('HMGET', key, 'rate', 'tat', 'cool', 'floor:' .. ask.lane)
  local rate = math.min(tonumber(known[1] or '') or limit.rate, limit.rate)
  local cell = 1000 / rate
  local spent = ahead(tonumber(known[2] or ''), limit.burst * cell)
  local owed = ahead(tonumber(known[4] or ''), cell / ask.floor)
  local reach = math.max(1, (limit.burst - 1) * ask.reach) * cell
  local short = spent + cell - reach
  local floor_short = math.max(spent + cell - limit.burst * cell, owed)
  local by_floor = short > 0 and floor_short <= short
  if by_floor then short = floor_short end
  hold(short, 'rate')
  if not ask.probes then hold(ahead(tonumber(known[3] or ''), 5000), 'cooling') end
  buckets[i] = {key = key, tat = now + spent + cell, owed = by_floor and now + cell / ask.floor}
end

-- The breaker: shut out after too many failures; then one call at a time tries whether it works again.
local shut = ahead(number(KEYS[2], 'shut'), 60000)
local trying = number(KEYS[2], 'trying')
if trying then
  hold(ahead(trying, 60000), 'failing')
  if not ask.probes then hold(shut, 'failing') end
end

if ask.slots > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
  redis.call('ZREMRANGEBYSCORE', KEYS[3], now + 2 * ask.lease, '+inf')
  if redis.call('ZCARD', KEYS[3]) >= ask.slots then hold(ask.poll, 'concurrency') end
end

if ask.object then
  hold(ahead(number(KEYS[4], 'paused'), 60000), 'object')
  if ahead(number(KEYS[4], 'held'), ask.lease) > 0 then hold(ask.poll, 'object') end
end

local day = math.floor(now / 86400000)
if ask.read and ask.reads > 0 then
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
  redis.call('HSET', bucket.key, 'tat', text(bucket.tat))
  if bucket.owed then redis.call('HSET', bucket.key, 'floor:' .. ask.lane, text(bucket.owed)) end
end
if trying then redis.call('HSET', KEYS[2], 'trying', text(now + 1000)) end
if ask.slots > 0 then redis.call('ZADD', KEYS[3], now + ask.lease, ask.permit) end
if ask.object then
  redis.call('HSET', KEYS[4], 'holder', ask.permit, 'held', text(now + ask.lease))
  redis.call('PEXPIRE', KEYS[4], 120000)
end
if ask.read then redis.call('HINCRBY', KEYS[5], day, 1) end
redis.call('SADD', KEYS[7], ask.name)
return {'0', ''}
