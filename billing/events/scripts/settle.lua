-- Complete events. KEYS: due, pending, list of the new status.
-- ARGV: status, failure or '', ms until a finished record expires, prefixes of records and waiting, then as
--       JSON for each subject its name and the events.
-- Events that another worker finished stay as they are.
-- All changes of a list are one command, because in a flood these occupy the ledger.
require_whole_slot(KEYS[1])
local ms = now_ms()
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

for _, group in ipairs(cjson.decode(ARGV[6])) do
    local subject, events = unpack(group)
    local waiting = ARGV[5] .. subject
    finish(waiting, events)
    if redis.call('EXISTS', waiting) == 0 then
        idle[#idle + 1] = subject
    else -- more arrived during the processing
        due[#due + 1] = ms
        due[#due + 1] = subject
    end
end

if #finished > 0 then
    local scores = {}
    for i, score in ipairs(redis.call('ZMSCORE', KEYS[2], unpack(finished))) do
        scores[#scores + 1] = score
        scores[#scores + 1] = finished[i]
    end
    redis.call('ZREM', KEYS[2], unpack(finished))
    redis.call('ZADD', KEYS[3], unpack(scores))
end
if #idle > 0 then
    redis.call('ZREM', KEYS[1], unpack(idle))
end
if #due > 0 then
    redis.call('ZADD', KEYS[1], unpack(due))
end
return 1
