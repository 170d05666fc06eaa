-- Write a flight ahead of sending it. ARGV[3]: period, [4]: fence, [5]: flight as JSON, [6]: its seq.
if not leased(ARGV[3], ARGV[4]) then
    return redis.error_reply(LEASE_LOST)
end
local key = part(ARGV[3], 'flight')
redis.call('DEL', key)
redis.call('HSET', key, 'flight', ARGV[5])
redis.call('HSET', part(ARGV[3]), 'seq', ARGV[6])
return 1
