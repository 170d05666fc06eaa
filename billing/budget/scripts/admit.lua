-- Admits one call to Stripe, or returns the time until its next attempt. All or nothing.
--
-- KEYS  global bucket, endpoint bucket, endpoint's list slots, object, reads of 30 days, waiting, endpoints, caller
-- ARGV  one JSON object, see RedisLimiter._acquire_args
-- Returns {milliseconds to wait, reason}; {"0", ""} means admitted.
--
-- A bucket is a generic cell rate algorithm: `tat` (theoretical arrival time) is the time up to which its
-- rate is used. A lane may use it ahead of now by its `reach`, a share of the burst: lower lanes run out
-- first. The last token of the burst is reserved for the lanes' floors, so that a flood in a higher lane
-- never starves a lower one. No lane exceeds the burst: rate + burst <= Stripe's limit.
--
-- A caller has a bucket of its own for each endpoint: a share of the endpoint's rate. Beyond it the caller's calls
-- have the least reach, so they get what nobody else wants; the reason is 'share' then.

local args = cjson.decode(ARGV[1])
local now = now_us() / 1000

local wait, why = 0, ''
local function hold(ms, reason)
  if ms > wait then wait, why = ms, reason end
end

local function text(value)
  return string.format('%.3f', value)
end

-- Milliseconds from now to a stored time, at most *most*. A clock that stepped back must not block calls
-- for that long, so a later time is corrected.
local function ahead(key, field, most)
  local left = (tonumber(redis.call('HGET', key, field) or '') or 0) - now
  if left > most then
    redis.call('HSET', key, field, text(now + most))
    return most
  end
  return math.max(left, 0)
end

local function rate_of(key, limit)
  return math.min(tonumber(redis.call('HGET', key, 'rate') or '') or limit.rate, limit.rate)
end

local day = math.floor(now / 86400000)
local fields, beyond = {}, 0
if args.caller ~= '' then
  local field = 'tat:' .. args.name
  local cell = 1000 / (rate_of(KEYS[2], args.endpoint) * args.caller.share)
  local burst = math.max(args.caller.burst, cell)
  local spent = ahead(KEYS[8], field, burst)
  beyond = math.max(spent + cell - burst, 0)
  fields = {field, text(now + math.min(spent + cell, burst))}
end

local buckets = {}
for i, limit in ipairs({args.account, args.endpoint}) do
  local key, floor = KEYS[i], 'floor:' .. args.lane
  local cell = 1000 / rate_of(key, limit)
  local spent, owed = ahead(key, 'tat', limit.burst * cell), ahead(key, floor, cell / args.floor)
  local reach = math.max(1, (limit.burst - 1) * (beyond > 0 and 0 or args.reach)) * cell
  local short = spent + cell - reach
  local floor_short = math.max(spent + cell - limit.burst * cell, owed)
  local by_floor = beyond == 0 and short > 0 and floor_short <= short
  hold(by_floor and floor_short or short, 'rate')
  if not args.probes then hold(ahead(key, 'cool', 1000), 'cooling') end
  buckets[i] = {key, 'tat', text(now + spent + cell)}
  if by_floor then
    buckets[i][4], buckets[i][5] = floor, text(now + cell / args.floor)
  end
end

-- The circuit breaker: open after too many failures; from then on one call at a time probes.
local trying = redis.call('HEXISTS', KEYS[2], 'trying') == 1
if trying then
  hold(ahead(KEYS[2], 'trying', 1000), 'failing')
  if not args.probes then hold(ahead(KEYS[2], 'shut', args.pause), 'failing') end
end

if args.slots then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
  redis.call('ZREMRANGEBYSCORE', KEYS[3], now + 2 * args.lease, '+inf')
  local slots = beyond > 0 and math.max(1, args.slots - 1) or args.slots
  if redis.call('ZCARD', KEYS[3]) >= slots then hold(args.poll, 'concurrency') end
end

if args.object then
  hold(ahead(KEYS[4], 'paused', 60000), 'object')
  if ahead(KEYS[4], 'held', args.lease) > 0 then hold(args.poll, 'object') end
end

if args.read and args.reads then
  local read = 0
  local days = redis.call('HGETALL', KEYS[5])
  for i = 1, #days, 2 do
    if tonumber(days[i]) <= day - 30 then
      redis.call('HDEL', KEYS[5], days[i])
    else
      read = read + tonumber(days[i + 1])
    end
  end
  if read >= args.reads then hold(60000, 'reads') end
end

if args.caller ~= '' and args.read then
  local today = redis.call('HGET', KEYS[8], 'day') == tostring(day)
  local read = today and tonumber(redis.call('HGET', KEYS[8], 'reads')) or 0
  if read >= args.caller.reads then hold((day + 1) * 86400000 - now, 'share') end
  for _, value in ipairs({'day', day, 'reads', read + 1}) do fields[#fields + 1] = value end
end
if beyond > 0 and why ~= '' and why ~= 'object' then why = 'share' end

local admitted = wait <= 0
local others = args.waiting - (admitted and 1 or 0)
if others > 0 then
  redis.call('HSET', KEYS[6], args.waiter, others .. '|' .. text(now + wait + 2000))
else
  redis.call('HDEL', KEYS[6], args.waiter)
end
if not admitted then return {text(wait), why} end

for _, bucket in ipairs(buckets) do
  redis.call('HSET', unpack(bucket))
end
if trying then redis.call('HSET', KEYS[2], 'trying', text(now + 1000)) end
if args.slots then redis.call('ZADD', KEYS[3], now + args.lease, args.permit) end
if args.object then
  redis.call('HSET', KEYS[4], 'holder', args.permit, 'held', text(now + args.lease))
  redis.call('PEXPIRE', KEYS[4], 120000)
end
if args.read then redis.call('HINCRBY', KEYS[5], day, 1) end
redis.call('SADD', KEYS[7], args.name)
if args.caller ~= '' then
  redis.call('HSET', KEYS[8], unpack(fields))
  redis.call('PEXPIRE', KEYS[8], 86400000)
end
return {'0', ''}
