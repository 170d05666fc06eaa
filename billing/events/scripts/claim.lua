-- Hand out subjects that are due, each with its waiting events, and hide them for a while.
-- KEYS: due. ARGV: how many subjects, after how many events to stop and how many of one subject at most,
--       ms that the subjects stay hidden, prefix of waiting, prefix of records, then the fields wanted of
--       each record.
-- Answers for each subject: its name, then for each event its id, its strikes (attempts that were not
-- forgiven) and those fields.
-- The attempt is counted now, so that an event which kills its worker is counted too.
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local answers, room = {}, tonumber(ARGV[2])
for _, subject in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ms, 'LIMIT', 0, ARGV[1])) do
    if room <= 0 then
        break
    end
    local events = {}
    for _, id in ipairs(redis.call('SRANDMEMBER', ARGV[4] .. subject, ARGV[2])) do
        local record = ARGV[5] .. id
        local attempts = redis.call('HINCRBY', record, 'attempts', 1)
        local kept = redis.call('HMGET', record, 'forgiven', unpack(ARGV, 6))
        events[#events + 1] = {id, attempts - (kept[1] or 0), unpack(kept, 2)}
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
