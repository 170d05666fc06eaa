-- Finish events. KEYS: due, pending, list of the new status.
-- ARGV: status, failure or '', ms that a finished record is kept, prefixes of records and waiting, then as
--       JSON for each subject its name and the events.
-- An event that somebody else finished meanwhile stays as it is.
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)

local function finish(waiting, id)
    local record = ARGV[4] .. id
    if redis.call('SREM', waiting, id) == 1 then
        redis.call('ZREM', KEYS[2], id)
        redis.call('ZADD', KEYS[3], redis.call('HGET', record, 'n'), id)
        redis.call('HSET', record, 'status', ARGV[1], 'processed', ms, 'failure', ARGV[2])
        redis.call('PEXPIRE', record, ARGV[3])
    end
end

for _, bundle in ipairs(cjson.decode(ARGV[6])) do
    local subject, events = unpack(bundle)
    local waiting = ARGV[5] .. subject
    for _, id in ipairs(events) do
        finish(waiting, id)
    end
    if redis.call('EXISTS', waiting) == 0 then
        redis.call('ZREM', KEYS[1], subject)
    else -- more came while these were worked on
        redis.call('ZADD', KEYS[1], ms, subject)
    end
end
return 1
