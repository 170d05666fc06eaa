-- Releases the permit of a call, and adapts the limits to its outcome.
--
-- KEYS  global bucket, endpoint bucket, endpoint's list slots, object
-- ARGV  one JSON object, see RedisLimiter.release
--
-- Rates change by additive increase and multiplicative decrease: +2/s for each second of successes,
-- x0.7 on a limiter's 429, at most once a second, with a pause of half a second in which only the first
-- lane may probe. A lock timeout pauses its object only, twice as long each time. `refused` is the time of the
-- last refusal of our key, until a call succeeds: of the endpoint, or of any.

local args = cjson.decode(ARGV[1])
local now = now_us() / 1000

local function number(key, field)
  return tonumber(redis.call('HGET', key, field) or '')
end

local function text(value)
  return string.format('%.3f', value)
end

local function raise(key, most)
  local rate = number(key, 'rate')
  if not rate then return end
  rate = rate + 2 / rate
  if rate >= most then
    redis.call('HDEL', key, 'rate')
  else
    redis.call('HSET', key, 'rate', text(rate))
  end
end

local function cut(key, most)
  redis.call('HINCRBY', key, 'throttled', 1)
  local last = number(key, 'cut') or 0
  if last <= now and now - last < 1000 then return end
  local rate = math.max((number(key, 'rate') or most) * 0.7, 0.5)
  redis.call('HSET', key, 'rate', text(rate), 'cut', text(now),
    'cool', text(now + 500 * (0.75 + args.jitter / 2)))
end

-- The breaker opens when more than half of the last calls of 30 seconds, and at least ten, failed.
local function failed(key)
  local since = number(key, 'since') or 0
  if since > now or now - since > 30000 then
    redis.call('HSET', key, 'since', text(now), 'calls', 0, 'failures', 0)
  end
  local failures = redis.call('HINCRBY', key, 'failures', 1)
  local calls = redis.call('HINCRBY', key, 'calls', 1)
  if number(key, 'trying') or (failures >= 10 and failures * 2 > calls) then
    redis.call('HSET', key, 'shut', text(now + args.pause), 'trying', text(now + 1000))
  end
end

local function worked(key)
  redis.call('HDEL', key, 'trying', 'shut')
  if number(key, 'since') then redis.call('HINCRBY', key, 'calls', 1) end
end

if args.slots then redis.call('ZREM', KEYS[3], args.permit) end

if args.object then
  if redis.call('HGET', KEYS[4], 'holder') == args.permit then
    redis.call('HDEL', KEYS[4], 'holder', 'held')
  end
  if args.outcome == 'locked' then
    local times = redis.call('HINCRBY', KEYS[4], 'times', 1)
    local pause = math.min(500 * 2 ^ (times - 1), 30000) * (0.75 + args.jitter / 2)
    redis.call('HSET', KEYS[4], 'paused', text(now + pause))
    redis.call('PEXPIRE', KEYS[4], 120000)
  elseif args.outcome == 'ok' then
    redis.call('DEL', KEYS[4])
  end
end

if args.outcome == 'limited' then
  cut(KEYS[2], args.endpoint)
elseif args.outcome == 'limited_globally' then
  cut(KEYS[1], args.account)
elseif args.outcome == 'failed' then
  failed(KEYS[2])
elseif args.outcome == 'refused' then
  redis.call('HSET', KEYS[2], 'refused', text(now))
elseif args.outcome == 'refused_globally' then
  redis.call('HSET', KEYS[1], 'refused', text(now))
elseif args.outcome == 'ok' then
  redis.call('HDEL', KEYS[1], 'refused')
  redis.call('HDEL', KEYS[2], 'refused')
  raise(KEYS[1], args.account)
  raise(KEYS[2], args.endpoint)
  worked(KEYS[2])
end
