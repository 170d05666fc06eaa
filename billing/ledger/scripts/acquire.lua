-- Acquire the lease of a period and read it. ARGV[3]: period, [4]: lease in ms, [5]: ms in which an
-- abandoned request may still arrive, [6]: ms after its end in which a period may still begin.
-- Answers the fence and the snapshot, false while another worker has the lease, or 'unknown' for a period
-- that is absent and accepts no usage; it is taken from the queues.
local period = ARGV[3]
local before = header_of(period)
if before and before.epoch == epoch and tonumber(before.lease_ms or 0) > now then
    return false
elseif not before and not takes_usage(period, ARGV[6]) then
    for _, queue in ipairs({ 'due', 'first', 'open', 'parked', 'unbillable', 'untold' }) do
        redis.call('ZREM', SHARD .. ':' .. queue, member(period))
    end
    return 'unknown'
end
-- A version of this program older than the list of holds may have placed or released one.
list_hold(redis.call('HGET', CUSTOMER, 'hold'))
local header = before or begun(period)
local key = part(period)
local fence = raised(header.fence or '0')

if header.state == 'open' and header.look_again_ms and tonumber(header.look_again_ms) <= now then
    redis.call('HSET', key, 'verify', raised(string.match(header.verify, '^%d+')))
    redis.call('HDEL', key, 'look_again_ms')
end
if header.epoch ~= epoch and header.state ~= 'sealed' then
    -- The server was replaced: its record of Stripe may be old, and sent requests may be missing from it.
    if redis.call('DEL', part(period, 'flight')) == 1 then
        given_up(period, ARGV[5])
    end
    redis.call('DEL', part(period, 'lines'))
    redis.call('HSET', key, 'ambiguous_ms', now)
end
redis.call('HSET', key, 'epoch', epoch, 'fence', fence, 'lease_ms', now + ARGV[4],
    'taken_ms', now, 'crashes', (header.crashes or 0) + 1)
if redis.call('EXISTS', part(period, 'flight')) == 0 then
    redis.call('HSET', key, 'told', header.pending or 0, 'told_version', header.version)
    redis.call('HDEL', key, 'newer_ms')
end

local running = syncs_in((header.running or '') .. ' ' .. (header.waiting or ''))
for _, n in ipairs(running) do
    set_status(n, 'RUNNING')
    redis.call('HSETNX', sync_key(n), 'started_ms', now)
    redis.call('HINCRBY', sync_key(n), 'attempts', 1)
    redis.call('HDEL', sync_key(n), 'next_attempt_ms')
end
redis.call('HSET', key, 'running', table.concat(running, ' '), 'waiting', '')
return { fence, snapshot(period) }
