-- A correction with a line of its own, once per key. ARGV[3]: the caller's key, [4]: currency, [5]: price,
-- [6]: quantity, [7]: the rest of it as JSON, [8]: ms until due.
-- Answers {outcome, number, `period at_ms json`}; outcome: made, known, unknown, currency or closed.
local before = redis.call('HGET', CUSTOMER .. ':adjusted', ARGV[3])
if before then
    return { 'known', before, redis.call('HGET', CUSTOMER .. ':adjustments', before) }
end
local currency = redis.call('HGET', CUSTOMER, 'currency')
local current = month_of(now)
if not currency then
    return { 'unknown' }
elseif currency ~= ARGV[4] then
    return { 'currency' }
elseif current_period() ~= current then
    return { 'closed', 0, current }
end
local header = header_of(current) or begun(current)
local n = string.format('%.0f', redis.call('HINCRBY', CUSTOMER, 'adjustments', 1))
local kept = string.format('%s %.0f %s', current, now, ARGV[7])
redis.call('HSET', CUSTOMER .. ':adjustments', n, kept)
redis.call('HSET', CUSTOMER .. ':adjusted', ARGV[3], n)
redis.call('HSET', part(current, 'totals'), 'adj:adj_' .. string.sub(NAME, 5) .. '_' .. n,
    ARGV[5] .. ' ' .. ARGV[6])
redis.call('HSET', part(current), 'version', raised(header.version))
due_within(current, ARGV[8])
return { 'made', n, kept }
