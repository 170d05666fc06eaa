-- Seal a period whose invoice is final, and carry the unbilled residuals to the next open period.
-- ARGV[3]: period, [4]: fence, [5]: version that was compared, [6]: retention in ms, [7]: ms after its end
-- in which a period may still begin, then pairs of line and unbilled quantity.
-- Answers 1, or 0 if usage was recorded meanwhile.
local period, key = ARGV[3], part(ARGV[3])
local header = leased(period, ARGV[4])
if not header then
    return redis.error_reply(LEASE_LOST)
elseif header.state ~= 'closing' or header.version ~= ARGV[5] then
    return 0
end
local target = landing(following(period), ARGV[7])
local stripe = redis.call('GET', part(period, 'lines'))
local stripe_lines = stripe and cjson.decode(stripe) or {}

local function carried_as(line)
    if string.find(line, '~', 1, true) or string.sub(line, 1, 4) == 'adj:' then
        return line
    end
    return line .. '~' .. period
end

local moved = {}
for i = 8, #ARGV, 2 do
    local line, hi, lo = ARGV[i], parsed(ARGV[i + 1])
    local here = redis.call('HGET', part(period, 'totals'), line)
    local at_stripe = stripe_lines[line]
    local price, have_hi, have_lo = at_stripe and (at_stripe.marked or at_stripe.price), 0, 0
    if here then
        local quantity
        price, quantity = price_and_quantity(here)
        have_hi, have_lo = parsed(quantity)
    end
    if not price or price == '' then
        return redis.error_reply('NOPRICE ' .. line)
    end
    have_hi, have_lo = minus(have_hi, have_lo, hi, lo)
    local name = carried_as(line)
    local there = redis.call('HGET', part(target, 'totals'), name)
    if there and price_and_quantity(there) ~= price then
        -- After a loss the target may have counted the same usage at another price, or have given another
        -- correction the same number: a line has one price, so this is one of its own.
        name = name .. '~' .. price
        there = redis.call('HGET', part(target, 'totals'), name)
    end
    if there then
        local _, quantity = price_and_quantity(there)
        hi, lo = plus(hi, lo, parsed(quantity))
    end
    if not (in_range(have_hi, have_lo) and in_range(hi, lo)) then
        return redis.error_reply('OUTOFRANGE ' .. line)
    end
    moved[#moved + 1] = {
        line, price .. ' ' .. written(have_hi, have_lo), name, price .. ' ' .. written(hi, lo),
    }
end

if #moved > 0 then
    local following_header = header_of(target) or begun(target)
    for _, move in ipairs(moved) do
        redis.call('HSET', part(period, 'totals'), move[1], move[2])
        redis.call('HSET', part(target, 'totals'), move[3], move[4])
    end
    redis.call('HSET', part(target), 'version', raised(following_header.version))
    due_now(target)
end
redis.call('HSET', key, 'state', 'sealed', 'synced', header.version, 'verified', verify_asked(header),
    'pending', 0)
redis.call('HDEL', key, 'oldest_ms', 'newer_ms', 'look_again_ms')
redis.call('DEL', part(period, 'flight'))
redis.call('ZREM', SHARD .. ':due', member(period))
redis.call('ZREM', SHARD .. ':untold', member(period))
-- A parked period woken after its expiry would begin again, empty, and credit all that was billed.
unpark(period)
redis.call('ZREMRANGEBYSCORE', CUSTOMER .. ':periods', '-inf', now)
-- A month that a person ended early is kept until it would be over anyway: forgotten before, it would begin again.
local retained = math.max(now, end_of(period)) - now + ARGV[6]
redis.call('ZADD', CUSTOMER .. ':periods', now + retained, period)
for _, name in ipairs({ 'totals', 'lines', 'app', 'region', 'organization' }) do
    redis.call('PEXPIRE', part(period, name), retained)
end
redis.call('PEXPIRE', key, retained)
if header.rewound then
    redis.call('HDEL', key, 'rewound')
    recovered()
end
return 1
