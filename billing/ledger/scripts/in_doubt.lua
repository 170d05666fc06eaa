-- Record that a request may still arrive at Stripe. ARGV[3]: period, [4]: fence.
if not leased(ARGV[3], ARGV[4]) then
    return redis.error_reply(LEASE_LOST)
end
redis.call('HSET', part(ARGV[3]), 'ambiguous_ms', now)
return 1
