-- Mark one request of the batch as done. ARGV[3]: period, [4]: fence, [5]: its index.
local key = part(ARGV[3], 'flight')
if not leased(ARGV[3], ARGV[4]) or redis.call('EXISTS', key) == 0 then
    return redis.error_reply(LEASE_LOST)
end
redis.call('HSET', key, ARGV[5], 1)
return 1
