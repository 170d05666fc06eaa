-- Finish events. KEYS: due, pending, list of the new status.
-- ARGV: status, failure or '', ms that a finished record is kept, prefixes of records and waiting, then as
--       JSON for each subject its name and the events.
-- An event that somebody else finished meanwhile stays as it is.
-- What leaves or joins a list does so in one command: in a flood the ledger is busy with these.
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local finished, due, idle = {}, {}, {}

local function finish(waiting, events)
    local here = redis.call('SMISMEMBER', waiting, unpack(events))
    redis.call('SREM', waiting, unpack(events))
    for i, id in ipairs(events) do
        if here[i] == 1 then
            local record = ARGV[4] .. id
            redis.call('HSET', record, 'status', ARGV[1], 'processed', ms, 'failure', ARGV[2])
            redis.call('PEXPIRE', record, ARGV[3])
            finished[#finished + 1] = id
        end
    end
end

for _, bundle in ipairs(cjson.decode(ARGV[6])) do
    local subject, events = unpack(bundle)
    local waiting = ARGV[5] .. subject
    finish(waiting, events)
    if redis.call('EXISTS', waiting) == 0 then
        idle[#idle + 1] = subject
    else -- more came while these were worked on
        due[#due + 1] = ms
        due[#due + 1] = subject
    end
end

if #finished > 0 then
    local places = {}
    for i, place in ipairs(redis.call('ZMSCORE', KEYS[2], unpack(finished))) do
        places[#places + 1] = place
        places[#places + 1] = finished[i]
    end
    redis.call('ZREM', KEYS[2], unpack(finished))
    redis.call('ZADD', KEYS[3], unpack(places))
end
if #idle > 0 then
    redis.call('ZREM', KEYS[1], unpack(idle))
end
if #due > 0 then
    redis.call('ZADD', KEYS[1], unpack(due))
end
return 1
