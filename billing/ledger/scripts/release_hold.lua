-- Release the hold ARGV[3], `since_ms json`, if it is still active ('': any). The next queued hold becomes
-- active; without one the customer is billed again. Pending periods are due now in either case: the queued hold
-- may be one that a flush of theirs ends. Answers the active hold, or false.
local active = redis.call('HGET', CUSTOMER, 'hold')
if not active or ARGV[3] ~= '' and ARGV[3] ~= active then
    return active
end
local waiting = redis.call('LPOP', CUSTOMER .. ':holds')
if waiting then
    redis.call('HSET', CUSTOMER, 'hold', waiting)
else
    redis.call('HDEL', CUSTOMER, 'hold')
end
list_hold(waiting)
for _, period in ipairs(redis.call('ZRANGEBYSCORE', CUSTOMER .. ':periods', 'inf', 'inf')) do
    if redis.call('ZSCORE', SHARD .. ':due', member(period)) then
        redis.call('ZADD', SHARD .. ':due', now, member(period))
    end
end
return waiting
