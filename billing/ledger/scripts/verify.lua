-- Request that Stripe's invoice is read before the next write. ARGV[3]: period, [4]: ms after its end in
-- which a period that the ledger has lost is begun; an older one was sealed and has expired, [5]: ms for which a
-- draft that somebody has just edited is left as it is, 0 if nobody has.
local header = header_of(ARGV[3])
if not header and now <= end_of(ARGV[3]) + ARGV[4] and redis.call('HEXISTS', CUSTOMER, 'currency') == 1 then
    header = begun(ARGV[3]) -- Stripe has an invoice of a period that the ledger has lost
    -- Not closed at once: usage that producers send again belongs to this period, and it is reviewed first.
    redis.call('ZADD', SHARD .. ':open', 'XX', 'GT', now, member(ARGV[3]))
end
if header and header.state ~= 'sealed' then
    redis.call('HSET', part(ARGV[3]), 'verify', raised(string.match(header.verify, '^%d+')))
    if ARGV[5] == '0' then
        redis.call('ZADD', SHARD .. ':due', now, member(ARGV[3]))
    else
        redis.call('HSET', part(ARGV[3]), 'edited_ms', now)
        redis.call('ZADD', SHARD .. ':due', 'LT', now + ARGV[5], member(ARGV[3]))
    end
end
return 1
