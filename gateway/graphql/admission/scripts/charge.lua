-- Charge query costs to token buckets, each after its refund. KEYS: one bucket per charge.
-- ARGV: capacity, tokens regained per second, then cost and refund of each charge.
-- Answers for each charge: tokens available, and ms to wait, 0 if it was charged.
-- A bucket that has refilled needs no state, so its key expires then.
local capacity, rate = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = now_ms()
local replies = {}
for k, key in ipairs(KEYS) do
    local cost, refund = tonumber(ARGV[2 * k + 1]), tonumber(ARGV[2 * k + 2])
    local bucket = redis.call('HMGET', key, 'available', 'at')
    local since = now - (tonumber(bucket[2]) or now)
    local available = math.min(capacity, (tonumber(bucket[1]) or capacity) + refund + since * rate / 1000)
    local wait = math.max(0, cost - available) / rate * 1000
    if wait == 0 then available = available - cost end
    redis.call('HSET', key, 'available', available, 'at', now)
    redis.call('PEXPIRE', key, math.ceil((capacity - available) / rate * 1000) + 1)
    replies[k] = {math.floor(available), math.ceil(wait)}
end
return replies
