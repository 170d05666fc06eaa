-- Register a customer. ARGV[3]: currency, [4]: rank of its source (CurrencySource).
-- Another currency is replaced, by a source that is no price and ranks as high, while nothing is billed in
-- it: every total is zero and there is no invoice, no request, none that may still arrive and no flush. The
-- zero totals pin prices of the old currency and are dropped.
-- Answers 1 if the customer's currency is ARGV[3] now, else 0.
local known, known_rank = unpack(redis.call('HMGET', CUSTOMER, 'currency', 'currency_rank'))
local rank, before = tonumber(ARGV[4]), tonumber(known_rank or 0)
if known == ARGV[3] then
    redis.call('HSET', CUSTOMER, 'currency_rank', math.max(rank, before))
    return 1
elseif known and (rank == 0 or rank < before) then
    return 0
end
local periods = known and redis.call('ZRANGEBYSCORE', CUSTOMER .. ':periods', now, 'inf') or {}
for _, period in ipairs(periods) do
    local header = header_of(period) or {}
    local unverified = header.look_again_ms
        or header.verify ~= string.match(header.verified or '', '^[^@]+')
    if header.invoice or tonumber(header.lease_ms or 0) > now or header.state and unverified
        or redis.call('EXISTS', part(period, 'flight')) == 1 then
        return 0
    end
    for _, total in ipairs(redis.call('HVALS', part(period, 'totals'))) do
        local _, quantity = price_and_quantity(total)
        if quantity ~= '0' then
            return 0
        end
    end
end
for _, period in ipairs(periods) do
    redis.call('DEL', part(period, 'totals'), part(period, 'app'), part(period, 'region'),
        part(period, 'organization'))
end
redis.call('HSET', CUSTOMER, 'currency', ARGV[3], 'currency_rank', rank)
return 1
