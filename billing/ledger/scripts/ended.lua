-- Open periods whose end has passed. ARGV[3]: the moment in ms, [4]: at most so many, [5]: ms in which
-- producers send again what a replaced server may have lost. Nothing is cut within that time.
if now - redis.call('HGET', SHARD .. ':epoch', 'since_ms') < tonumber(ARGV[5]) then
    return {}
end
return redis.call('ZRANGEBYSCORE', SHARD .. ':open', '-inf', ARGV[3], 'LIMIT', 0, ARGV[4])
