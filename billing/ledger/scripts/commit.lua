-- Store what Stripe has confirmed. ARGV[3]: period, [4]: fence, [5]: synced version ('*': unchanged, '':
-- remove it), [6]: completed verification ('*': unchanged), [7]: invoice or '', [8]: lines as JSON, [9]:
-- seq, [10]: invoice generation (both '*': unchanged), [11]: ms in which a dropped request may still
-- arrive, 0 if none was dropped, [12]: 1 if the invoice is final, else '', [13]: 1 if the ledger has lost
-- usage that the invoice shows, else '', [14]: the version that the invoice names, or ''.
local period, key = ARGV[3], part(ARGV[3])
local header = leased(period, ARGV[4])
if not header then
    return redis.error_reply(LEASE_LOST)
end
redis.call('DEL', part(period, 'flight'))
redis.call('SET', part(period, 'lines'), ARGV[8], 'KEEPTTL')

local function set(field, value)
    if value == '' then
        redis.call('HDEL', key, field)
    elseif value ~= '*' then
        redis.call('HSET', key, field, value)
    end
end
set('synced', ARGV[5])
set('verified', ARGV[6])
set('invoice', ARGV[7])
set('seq', ARGV[9])
set('generation', ARGV[10])
set('final', ARGV[12])
set('rewound', ARGV[13])
set('stripe_version', ARGV[14])
if ARGV[13] ~= '' then
    -- No month of the customer is cut: producers send the lost usage again, and it belongs there.
    redis.call('ZADD', SHARD .. ':rewound', 'NX', now, NAME)
    for _, unsealed in ipairs(unsealed_periods()) do
        redis.call('ZREM', SHARD .. ':open', member(unsealed))
    end
elseif header.rewound then
    recovered()
end
if ARGV[11] ~= '0' then
    given_up(period, ARGV[11])
end

if ARGV[5] ~= '' and ARGV[5] ~= '*' then
    redis.call('HSET', key, 'synced_ms', now)
    local count = ARGV[5] == header.version and header.pending
        or ARGV[5] == header.told_version and header.told or 0
    for _, n in ipairs(syncs_in(header.running)) do
        redis.call('HINCRBY', sync_key(n), 'deltas', count)
    end
    redis.call('HSET', key, 'pending', (header.pending or 0) - count, 'told', 0,
        'just_told', (header.just_told or 0) + count)
    if ARGV[5] == header.version then
        redis.call('HDEL', key, 'oldest_ms')
        redis.call('ZREM', SHARD .. ':untold', member(period))
    elseif header.newer_ms then
        redis.call('HSET', key, 'oldest_ms', header.newer_ms)
        redis.call('ZADD', SHARD .. ':untold', header.newer_ms, member(period))
    end
end

-- The period leaves the due queue only if nothing is pending, checked in this same step. A running sync
-- stays in the queue until the release ends it, so that it also ends if this worker dies.
local after = header_of(period)
if is_clean(after) and not after.look_again_ms and header.running == '' and header.waiting == '' then
    redis.call('ZREM', SHARD .. ':due', member(period))
end
return 1
