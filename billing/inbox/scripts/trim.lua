-- Forget the oldest finished events: those past their time, and those beyond what is kept.
-- KEYS: lists of finished events. ARGV: most events of a list, most to forget of a list now,
--       prefix of records. Answers how many were forgotten.
local forgotten = 0
for _, list in ipairs(KEYS) do
    local excess = redis.call('ZCARD', list) - ARGV[1]
    for place, id in ipairs(redis.call('ZRANGE', list, 0, ARGV[2] - 1)) do
        local record = ARGV[3] .. id
        if place > excess and redis.call('EXISTS', record) == 1 then
            break
        end
        redis.call('DEL', record)
        redis.call('ZREM', list, id)
        forgotten = forgotten + 1
    end
end
return forgotten
