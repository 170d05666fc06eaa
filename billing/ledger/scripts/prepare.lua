-- Write a request batch ahead of sending it. ARGV[3]: period, [4]: fence, [5]: batch as JSON, [6]: its seq,
-- [7]: the version that it finalizes, '' if it finalizes none.
-- Answers 1, or 0 if an adjustment was created meanwhile: the bill would become final without it.
local header = leased(ARGV[3], ARGV[4])
if not header then
    return redis.error_reply(LEASE_LOST)
elseif ARGV[7] ~= '' and ARGV[7] ~= header.version then
    return 0
end
local key = part(ARGV[3], 'flight')
redis.call('DEL', key)
redis.call('HSET', key, 'flight', ARGV[5])
redis.call('HSET', part(ARGV[3]), 'seq', ARGV[6])
return 1
