-- Erase what was written about a customer in free text, and what the usage of its months was for. ARGV[3]: the
-- text that takes the place of a reason or a message, [4]: syncs that are remembered. Amounts, quantities,
-- SKUs, dates and authors stay.
-- Answers {'hold'} while billing is on hold, or the months whose usage is not billed; empty when it is done.
if redis.call('HEXISTS', CUSTOMER, 'hold') == 1 then
    return { 'hold' }
end
local periods = redis.call('ZRANGEBYSCORE', CUSTOMER .. ':periods', now, 'inf')
local unbilled = {}
for _, period in ipairs(periods) do
    local header = header_of(period) or {}
    local billed = header.state == 'sealed'
        or not header.invoice and redis.call('EXISTS', part(period, 'flight')) == 0
    for _, total in ipairs(redis.call('HVALS', part(period, 'totals'))) do
        local _, quantity = price_and_quantity(total)
        billed = billed and (header.state == 'sealed' or quantity == '0')
    end
    if not billed then
        unbilled[#unbilled + 1] = period
    end
end
if #unbilled > 0 then
    return unbilled
end
local adjustments = fields_of(CUSTOMER .. ':adjustments')
for n, stored in pairs(adjustments) do
    local place, content = string.match(stored, '^(%S+ %S+) (.*)$')
    local adjustment = cjson.decode(content)
    adjustment.reason = ARGV[3]
    adjustments[n] = place .. ' ' .. cjson.encode(adjustment)
end
for _, period in ipairs(periods) do
    redis.call('DEL', part(period, 'app'), part(period, 'region'), part(period, 'organization'))
end
for n, erased in pairs(adjustments) do
    redis.call('HSET', CUSTOMER .. ':adjustments', n, erased)
end
local last = tonumber(redis.call('HGET', CUSTOMER, 'syncs') or 0)
for n = math.max(1, last - tonumber(ARGV[4]) + 1), last do
    local sync = sync_key(string.format('%.0f', n))
    if redis.call('HEXISTS', sync, 'failure_message') == 1 then
        redis.call('HSET', sync, 'failure_message', ARGV[3])
    end
end
return {}
