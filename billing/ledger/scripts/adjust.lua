-- Create an adjustment with a line of its own, once per key. ARGV[3]: idempotency key, [4]: currency,
-- [5]: price, [6]: quantity, [7]: all of it as JSON, [8]: ms until due, [9]: month, '' for the current
-- one, [10]: ms after its end in which a period may still begin, [11]: ms in which an abandoned request
-- may still arrive.
-- Answers {outcome, number, `period at_ms json`}, outcome: made, known, unknown or currency; or {reason
-- for which the month's bill accepts no adjustment, the month, the current period}.
local before = redis.call('HGET', CUSTOMER .. ':adjusted', ARGV[3])
if before then
    return { 'known', before, redis.call('HGET', CUSTOMER .. ':adjustments', before) }
end
local currency = redis.call('HGET', CUSTOMER, 'currency')
if not currency then
    return { 'unknown' }
elseif currency ~= ARGV[4] then
    return { 'currency' }
end
local period = ARGV[9] ~= '' and ARGV[9] or month_of(now)
local refused = uncorrectable(period, ARGV[10], ARGV[11])
if refused then
    return { refused, period, current_period() }
end
local header = header_of(period) or begun(period)
local n = string.format('%.0f', redis.call('HINCRBY', CUSTOMER, 'adjustments', 1))
local stored = string.format('%s %.0f %s', period, now, ARGV[7])
redis.call('HSET', CUSTOMER .. ':adjustments', n, stored)
redis.call('HSET', CUSTOMER .. ':adjusted', ARGV[3], n)
redis.call('HSET', part(period, 'totals'), 'adj:adj_' .. string.sub(NAME, 5) .. '_' .. n,
    ARGV[5] .. ' ' .. ARGV[6])
redis.call('HSET', part(period), 'version', raised(header.version))
due_within(period, ARGV[8])
return { 'made', n, stored }
