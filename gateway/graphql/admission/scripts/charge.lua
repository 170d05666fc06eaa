-- Charge query costs to the token buckets of people and of their groups.
-- KEYS: for each charge the bucket of the person, then that of the group.
-- ARGV: capacity and tokens regained per second of a person, then of a group; then for each charge its cost,
-- which is negative for a refund, and 1 if it applies whatever is available (an answer was given already).
-- Answers for each charge: tokens available, and ms to wait, 0 if it was charged. It is charged to both buckets
-- or to none. What was spent without being available is a debt: the bucket is below zero.
-- A bucket that has refilled needs no state, so its key expires then.
local limits = {
    {tonumber(ARGV[1]), tonumber(ARGV[2])},
    {tonumber(ARGV[3]), tonumber(ARGV[4])},
}
local now = now_ms()

local function available(key, capacity, rate)
    local bucket = redis.call('HMGET', key, 'available', 'at')
    local since = now - (tonumber(bucket[2]) or now)
    return math.min(capacity, (tonumber(bucket[1]) or capacity) + since * rate / 1000)
end

local replies = {}
for charge = 1, #KEYS / 2 do
    local cost, applies = tonumber(ARGV[2 * charge + 3]), ARGV[2 * charge + 4] == '1'
    local left, wait = {}, 0
    for which, limit in ipairs(limits) do
        left[which] = available(KEYS[2 * charge - 2 + which], limit[1], limit[2])
        wait = math.max(wait, (cost - left[which]) / limit[2] * 1000)
    end
    local charged = applies or wait == 0
    for which, limit in ipairs(limits) do
        local key = KEYS[2 * charge - 2 + which]
        if charged then left[which] = math.min(limit[1], left[which] - cost) end
        redis.call('HSET', key, 'available', left[which], 'at', now)
        redis.call('PEXPIRE', key, math.ceil((limit[1] - left[which]) / limit[2] * 1000) + 1)
    end
    replies[charge] = {math.floor(math.min(left[1], left[2])), charged and 0 or math.ceil(wait)}
end
return replies
