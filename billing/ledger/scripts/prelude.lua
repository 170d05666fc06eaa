-- Shared by the ledger's scripts: this text precedes the text of every one.
-- KEYS[1] is a customer's hash, `{b17}:cus_x`, or a shard's due-set, `{b17}:due`; every other key is
-- derived from it and shares its slot (billing/ledger/keys.py lists them all).
-- ARGV[1] is the time in ms, empty for the server's own; ARGV[2] is a nonce, new for every call.
-- A script that fails after a write is not rolled back, so everything is checked before the first write.
require_whole_slot(KEYS[1])
local CUSTOMER = KEYS[1]
local SHARD = string.match(CUSTOMER, '^{b%d+}')
local NAME = string.sub(CUSTOMER, #SHARD + 2)
local nonce = ARGV[2]
local now = tonumber(ARGV[1]) or now_ms()
local epoch = redis.call('HGET', SHARD .. ':epoch', 'epoch')
if not epoch then
    return redis.error_reply('NOEPOCH this server is new to the ledger')
end

-- Exact quantities: hi + lo * 10^-12 with 0 <= lo < 10^12, both integers far below 2^53. As text they
-- are plain decimals without trailing zeros.
local UNIT, LIMIT = 1e12, 1e15

local function parsed(text)
    local sign, whole, places = string.match(text, '^(-?)(%d+)%.?(%d*)$')
    local hi, lo = tonumber(whole), tonumber(places .. string.rep('0', 12 - #places))
    if sign == '' then
        return hi, lo
    elseif lo == 0 then
        return 0 - hi, 0
    end
    return -1 - hi, UNIT - lo
end

local function written(hi, lo)
    local sign = ''
    if hi < 0 then
        sign = '-'
        if lo == 0 then
            hi = 0 - hi
        else
            hi, lo = -1 - hi, UNIT - lo
        end
    end
    if lo == 0 then
        return string.format('%s%.0f', sign, hi)
    end
    return (string.gsub(string.format('%s%.0f.%012.0f', sign, hi, lo), '0+$', ''))
end

local function plus(hi, lo, more_hi, more_lo)
    hi, lo = hi + more_hi, lo + more_lo
    if lo >= UNIT then
        return hi + 1, lo - UNIT
    end
    return hi, lo
end

local function minus(hi, lo, less_hi, less_lo)
    hi, lo = hi - less_hi, lo - less_lo
    if lo < 0 then
        return hi - 1, lo + UNIT
    end
    return hi, lo
end

-- At most 15 digits before the point, for either sign.
local function in_range(hi, lo)
    return hi < LIMIT and (hi > -LIMIT or (hi == -LIMIT and lo > 0))
end

-- A line's total is stored as `price quantity`.
local function price_and_quantity(total)
    return string.match(total, '^(%S+) (%S+)$')
end

local function month_of(ms)
    local z = math.floor(ms / 86400000) + 719468
    local era = math.floor(z / 146097)
    local day = z - era * 146097
    local year = math.floor(
        (day - math.floor(day / 1460) + math.floor(day / 36524) - math.floor(day / 146096)) / 365
    )
    local of_year = day - (365 * year + math.floor(year / 4) - math.floor(year / 100))
    local month = math.floor((5 * of_year + 2) / 153)
    month = month < 10 and month + 3 or month - 9
    return string.format('%04d-%02d', year + era * 400 + (month <= 2 and 1 or 0), month)
end

local function following(period)
    local year, month = tonumber(string.sub(period, 1, 4)), tonumber(string.sub(period, 6))
    if month == 12 then
        return string.format('%04d-01', year + 1)
    end
    return string.format('%04d-%02d', year, month + 1)
end

-- The first millisecond after the period.
local function end_of(period)
    local after = following(period)
    local year, month = tonumber(string.sub(after, 1, 4)), tonumber(string.sub(after, 6))
    if month <= 2 then
        year, month = year - 1, month + 12
    end
    local days = 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
    return (days + math.floor((153 * (month - 3) + 2) / 5) - 719468) * 86400000
end

local function part(period, name)
    return CUSTOMER .. ':' .. period .. (name and ':' .. name or '')
end

local function member(period)
    return NAME .. '|' .. period
end

local function fields_of(key)
    local flat, fields = redis.call('HGETALL', key), {}
    for i = 1, #flat, 2 do
        fields[flat[i]] = flat[i + 1]
    end
    return fields
end

-- The period's header, nil if nothing was ever recorded in it.
local function header_of(period)
    local header = fields_of(part(period))
    return header.state and header or nil
end

-- Write and return the header of a new period.
local function begun(period)
    local header = {
        state = 'open', version = '0:0', synced = '0:0', verify = '0', verified = '0@' .. epoch, epoch = epoch,
    }
    redis.call('HSET', part(period), 'state', header.state, 'version', header.version,
        'synced', header.synced, 'verify', header.verify, 'verified', header.verified, 'epoch', epoch)
    redis.call('ZADD', CUSTOMER .. ':periods', 'inf', period)
    if not redis.call('ZSCORE', SHARD .. ':rewound', NAME) then
        redis.call('ZADD', SHARD .. ':open', end_of(period), member(period))
    end
    return header
end

-- True if *period* accepts usage: it is open, or it has no usage yet and *settle* ms after its end, when
-- it would be closed at once, are not over. No other period may be begun: one that was billed and has expired
-- would be empty, and credit its whole bill.
local function takes_usage(period, settle)
    local state = redis.call('HGET', part(period), 'state')
    if state then
        return state == 'open'
    end
    return now < end_of(period) + settle
end

-- The period in which usage of *period* is counted: itself, or the first later one that accepts usage.
local function landing(period, settle)
    while not takes_usage(period, settle) do
        period = following(period)
    end
    return period
end

-- The period in which usage of now is counted.
local function current_period()
    return landing(month_of(now), 0)
end

-- The reason for which the bill of *period* accepts no adjustment: `future`, `closed` (it is final, or
-- there is none) or `busy` (it may become final without it); nil if it accepts one.
local function uncorrectable(period, settle, quiet)
    local header = header_of(period)
    if not header then
        return period > month_of(now) and 'future' or not takes_usage(period, settle) and 'closed' or nil
    elseif header.state == 'open' then
        return nil
    elseif header.state == 'sealed' or header.final then
        return 'closed'
    end
    local flight = redis.call('HGET', part(period, 'flight'), 'flight')
    local finalizing = flight and cjson.decode(flight).ops[1][1] == 'finalize'
    local in_doubt = now <= (header.ambiguous_ms or 0) + quiet or header.epoch ~= epoch
    return (finalizing or in_doubt) and 'busy' or nil
end

-- The token of the requested verification: a new epoch requests one for every period without a write.
local function verify_asked(header)
    return header.verify .. '@' .. epoch
end

local function is_clean(header)
    return header.state == 'open' and header.version == header.synced
        and header.verified == verify_asked(header)
end

local function raised(version)
    return string.format('%.0f:%s', tonumber(string.match(version, '^%d+')) + 1, nonce)
end

-- Make the period due in *ms*, unless it is in the due queue already.
local function due_within(period, ms)
    redis.call('ZADD', SHARD .. ':due', 'NX', now + ms, member(period))
end

-- Remove the period from those that wait for a person.
local function unpark(period)
    redis.call('ZREM', SHARD .. ':parked', member(period))
    redis.call('ZREM', SHARD .. ':unbillable', member(period))
end

local function due_now(period)
    redis.call('ZADD', SHARD .. ':due', 'LT', now, member(period))
end

-- An abandoned request may still arrive within *ms* and duplicate a line or restore an old quantity:
-- nothing is finalized in that time, and an open draft is verified once more after it.
local function given_up(period, ms)
    redis.call('HSET', part(period), 'ambiguous_ms', now, 'look_again_ms', now + ms)
end

local function unsealed_periods()
    return redis.call('ZRANGEBYSCORE', CUSTOMER .. ':periods', 'inf', 'inf')
end

-- The ledger has again what the invoice of a period shows, or a person gave it up. Once that is so for all
-- periods of the customer, they can be cut again.
local function recovered()
    local periods = unsealed_periods()
    for _, period in ipairs(periods) do
        if redis.call('HEXISTS', part(period), 'rewound') == 1 then
            return
        end
    end
    redis.call('ZREM', SHARD .. ':rewound', NAME)
    for _, period in ipairs(periods) do
        if redis.call('HGET', part(period), 'state') == 'open' then
            redis.call('ZADD', SHARD .. ':open', end_of(period), member(period))
        end
    end
end

-- The header of a period whose lease is still *fence*; nil if another worker has taken over, or the
-- server was replaced since.
local function leased(period, fence)
    local header = header_of(period)
    if header and header.fence == fence and header.epoch == epoch then
        return header
    end
    return nil
end

local LEASE_LOST = 'LEASELOST another worker has taken over'

-- Set the customer's entry in the shard's list of holds: *hold* as `since_ms json`, false for none.
local function list_hold(hold)
    if hold then
        redis.call('ZADD', SHARD .. ':held', string.match(hold, '^%d+'), NAME)
    else
        redis.call('ZREM', SHARD .. ':held', NAME)
    end
end

local SYNC_STATUSES = { 'QUEUED', 'RUNNING', 'RETRYING', 'SUCCEEDED', 'FAILED' }

local function sync_key(n)
    return CUSTOMER .. ':sync:' .. n
end

-- The syncs of a list like `4 5` that are still remembered.
local function syncs_in(text)
    local found = {}
    for n in string.gmatch(text or '', '%d+') do
        if redis.call('EXISTS', sync_key(n)) == 1 then
            found[#found + 1] = n
        end
    end
    return found
end

local function set_status(n, status)
    local was, requested = unpack(redis.call('HMGET', sync_key(n), 'status', 'requested_ms'))
    if was ~= status then
        redis.call('ZREM', SHARD .. ':syncs:' .. was, NAME .. '|' .. n)
        redis.call('ZADD', SHARD .. ':syncs:' .. status, requested, NAME .. '|' .. n)
        redis.call('HSET', sync_key(n), 'status', status)
    end
end

-- Create a sync of the period, requested at *requested*; the oldest beyond *history* is deleted.
local function new_sync(period, status, trigger, by, history, requested)
    local n = string.format('%.0f', redis.call('HINCRBY', CUSTOMER, 'syncs', 1))
    redis.call('HSET', sync_key(n), 'status', status, 'trigger', trigger, 'by', by, 'period', period,
        'requested_ms', requested, 'attempts', 0)
    redis.call('ZADD', SHARD .. ':syncs:' .. status, requested, NAME .. '|' .. n)
    local oldest = string.format('%.0f', n - history)
    if redis.call('DEL', sync_key(oldest)) == 1 then
        for _, old_status in ipairs(SYNC_STATUSES) do
            redis.call('ZREM', SHARD .. ':syncs:' .. old_status, NAME .. '|' .. oldest)
        end
    end
    return n
end

local function snapshot(period)
    return {
        now, epoch, redis.call('HGETALL', CUSTOMER), redis.call('HGETALL', part(period)),
        redis.call('HGETALL', part(period, 'totals')), redis.call('GET', part(period, 'lines')),
        redis.call('HGETALL', part(period, 'flight')),
    }
end
