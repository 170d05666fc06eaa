-- Close the period: usage that arrives from now on is counted in the next one. ARGV[3]: period.
local period = ARGV[3]
local header = header_of(period)
if not header or header.state ~= 'open' then
    return 0
end
redis.call('HSET', part(period), 'state', 'closing', 'closed_ms', now)
redis.call('ZREM', SHARD .. ':open', member(period))
redis.call('ZADD', SHARD .. ':due', now, member(period))
redis.call('ZADD', SHARD .. ':first', now, member(period))
return 1
