-- Bill the customer again; whatever waited is looked at now. Answers 0 when nothing was held.
if redis.call('HDEL', CUSTOMER, 'hold') == 0 then
    return 0
end
for _, period in ipairs(redis.call('ZRANGEBYSCORE', CUSTOMER .. ':periods', 'inf', 'inf')) do
    if redis.call('ZSCORE', SHARD .. ':due', member(period)) then
        redis.call('ZADD', SHARD .. ':due', now, member(period))
    end
end
return 1
