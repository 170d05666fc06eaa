-- List open periods that ended some time ago. ARGV[3]: latest end in ms, [4]: limit, [5]: ms in which producers
-- resend what a replaced server may have lost, [6]: ms after its end in which a period stays open. No period
-- is closed within either, by this server's clock: the caller's may be wrong.
if now - redis.call('HGET', SHARD .. ':epoch', 'since_ms') < tonumber(ARGV[5]) then
    return {}
end
return redis.call('ZRANGEBYSCORE', SHARD .. ':open', '-inf',
    math.min(ARGV[3], now - ARGV[6]), 'LIMIT', 0, ARGV[4])
