-- List open periods whose end has passed. ARGV[3]: time in ms, [4]: limit, [5]: ms in which producers
-- resend what a replaced server may have lost. No period is closed within that time.
if now - redis.call('HGET', SHARD .. ':epoch', 'since_ms') < tonumber(ARGV[5]) then
    return {}
end
return redis.call('ZRANGEBYSCORE', SHARD .. ':open', '-inf', ARGV[3], 'LIMIT', 0, ARGV[4])
