-- Release the lease and set when the period is due again. ARGV[3]: period, [4]: fence, [5]: delay in ms,
-- [6]: ms that new usage may wait, [7]: length of the sync history, [8]: sync status or '' to derive it,
-- [9]-[12]: lines added, updated, removed and calls, [13]: invoice, [14]-[16]: failure's code, message
-- and request id, [17]: reason for which the period is parked, '' if it is not; for `customer_deleted` it is
-- not due again.
-- Answers the numbers of the syncs that this was a run of.
local period, key = ARGV[3], part(ARGV[3])
local header = leased(period, ARGV[4])
if not header then
    return redis.error_reply(LEASE_LOST)
end
local clean, sealed = is_clean(header), header.state == 'sealed'
local unbillable = ARGV[17] == 'customer_deleted'
local status = ARGV[8]
if status == '' then
    status = (clean or sealed) and 'SUCCEEDED' or 'QUEUED'
end
local finished = status == 'SUCCEEDED' or status == 'FAILED'
local delay = tonumber(ARGV[5])
local running, waiting = syncs_in(header.running), syncs_in(header.waiting)
local asked_meanwhile = #waiting > 0

local wrote = ARGV[9] + ARGV[10] + ARGV[11] > 0
if header.running == '' and (wrote or ARGV[14] ~= '') then
    local trigger = header.state == 'open' and 'INTERVAL' or 'PERIOD_CLOSE'
    local began = header.taken_ms or now -- leased by an older version, which did not record it
    local n = new_sync(period, 'RUNNING', trigger, '', tonumber(ARGV[7]), began)
    redis.call('HSET', sync_key(n), 'started_ms', began, 'attempts', 1, 'deltas', header.just_told or 0)
    running[1] = n
end
if sealed then
    for _, n in ipairs(waiting) do
        running[#running + 1] = n
    end
    waiting = {}
end

for _, n in ipairs(running) do
    set_status(n, status)
    local sync = sync_key(n)
    redis.call('HINCRBY', sync, 'lines_added', ARGV[9])
    redis.call('HINCRBY', sync, 'lines_updated', ARGV[10])
    redis.call('HINCRBY', sync, 'lines_removed', ARGV[11])
    redis.call('HINCRBY', sync, 'stripe_calls', ARGV[12])
    if ARGV[13] ~= '' then
        redis.call('HSET', sync, 'invoice', ARGV[13])
    end
    redis.call('HDEL', sync, 'failure_code', 'failure_message', 'failure_request')
    if ARGV[14] ~= '' then
        redis.call('HSET', sync, 'failure_code', ARGV[14], 'failure_message', ARGV[15],
            'failure_request', ARGV[16])
    end
    if finished then
        redis.call('HSET', sync, 'finished_ms', now)
    else
        if status == 'QUEUED' then
            redis.call('HINCRBY', sync, 'attempts', -1) -- it waits; this was no failed attempt
        end
        redis.call('HSET', sync, 'next_attempt_ms', now + delay)
        table.insert(waiting, 1, n)
    end
end

redis.call('HSET', key, 'fence', string.match(header.fence, '^%d+') .. ':released', 'lease_ms', 0,
    'crashes', 0, 'just_told', 0, 'running', '', 'waiting', table.concat(waiting, ' '),
    'attempts', finished and status == 'SUCCEEDED' and 0
        or (header.attempts or 0) + (status == 'RETRYING' and 1 or 0))
if #waiting == 0 then
    redis.call('HDEL', key, 'asked')
end
if ARGV[17] == '' then
    redis.call('HDEL', key, 'stuck')
    unpark(period)
else
    redis.call('HSET', key, 'stuck', ARGV[17])
    redis.call('ZREM', SHARD .. (unbillable and ':parked' or ':unbillable'), member(period))
    redis.call('ZADD', SHARD .. (unbillable and ':unbillable' or ':parked'), 'NX', now, member(period))
end

local due, mine = SHARD .. ':due', member(period)
if clean and #waiting == 0 and header.look_again_ms then
    redis.call('ZADD', due, header.look_again_ms, mine)
elseif sealed or (clean and #waiting == 0) then
    redis.call('ZREM', due, mine)
elseif asked_meanwhile then
    redis.call('ZADD', due, now, mine)
elseif unbillable then
    redis.call('ZREM', due, mine) -- until a person acts
elseif delay == 0 and finished and header.state == 'open' and header.synced
    and header.verified == verify_asked(header)
    and redis.call('EXISTS', part(period, 'flight')) == 0 then
    -- All that was planned is synced; usage recorded meanwhile waits for the next interval.
    redis.call('ZADD', due, (header.newer_ms or now) + ARGV[6], mine)
else
    redis.call('ZADD', due, now + delay, mine)
end
return running
