-- Release the hold ARGV[3], `since_ms json`, if it is still active ('': any). The next queued hold becomes
-- active; without one the customer is billed again, and pending periods are due now. Answers the active
-- hold, or false.
local active = redis.call('HGET', CUSTOMER, 'hold')
if not active or ARGV[3] ~= '' and ARGV[3] ~= active then
    return active
end
local waiting = redis.call('LPOP', CUSTOMER .. ':holds')
if waiting then
    redis.call('HSET', CUSTOMER, 'hold', waiting)
    list_hold(waiting)
    return waiting
end
redis.call('HDEL', CUSTOMER, 'hold')
list_hold(false)
for _, period in ipairs(redis.call('ZRANGEBYSCORE', CUSTOMER .. ':periods', 'inf', 'inf')) do
    if redis.call('ZSCORE', SHARD .. ':due', member(period)) then
        redis.call('ZADD', SHARD .. ':due', now, member(period))
    end
end
return false
