-- Extend a lease. ARGV[3]: period, [4]: fence, [5]: ms from now.
if not leased(ARGV[3], ARGV[4]) then
    return redis.error_reply(LEASE_LOST)
end
redis.call('HSET', part(ARGV[3]), 'lease_ms', now + ARGV[5])
return 1
