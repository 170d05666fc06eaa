-- Release the hold ARGV[3], `since_ms json`, if it still stands ('' for whichever does): the next one
-- that waits stands then, or the customer is billed again and whatever waited is looked at now. Answers
-- the hold that stands, or false.
local stands = redis.call('HGET', CUSTOMER, 'hold')
if not stands or ARGV[3] ~= '' and ARGV[3] ~= stands then
    return stands
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
