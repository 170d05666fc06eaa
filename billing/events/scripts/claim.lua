-- Claim due subjects with their waiting events, and hide them for a limited time.
-- KEYS: due. ARGV: maximum of subjects, maximum of events (of all, approximately, and of one subject),
--       ms that the subjects stay hidden, prefix of waiting, prefix of records, then the fields to return
--       of each record.
-- Returns for each subject: its name, then for each event its id, its attempts (without forgiven ones) and
-- those fields.
-- The attempt is counted now, so that it counts even if the event kills its worker.
require_whole_slot(KEYS[1])
local ms = now_ms()
local answers, room = {}, tonumber(ARGV[2])
for _, subject in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ms, 'LIMIT', 0, ARGV[1])) do
    if room <= 0 then
        break
    end
    local events = {}
    for _, id in ipairs(redis.call('SRANDMEMBER', ARGV[4] .. subject, ARGV[2])) do
        local record = ARGV[5] .. id
        local attempts = redis.call('HINCRBY', record, 'attempts', 1)
        local fields = redis.call('HMGET', record, 'forgiven', unpack(ARGV, 6))
        events[#events + 1] = {id, attempts - (fields[1] or 0), unpack(fields, 2)}
    end
    if #events == 0 then
        redis.call('ZREM', KEYS[1], subject)
    else
        redis.call('ZADD', KEYS[1], ms + ARGV[3], subject)
        answers[#answers + 1] = {subject, events}
        room = room - #events
    end
end
return answers
