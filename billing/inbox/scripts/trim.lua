-- Forget the oldest finished events: those past their time, and those beyond what is kept.
-- KEYS: lists of finished events. ARGV: most events of a list, most to forget of a list now,
--       prefix of records. Answers how many were forgotten.
local function forget(list, most)
    local excess, forgotten = redis.call('ZCARD', list) - ARGV[1], 0
    for _, id in ipairs(redis.call('ZRANGE', list, 0, most - 1)) do
        local record = ARGV[3] .. id
        if forgotten >= excess and redis.call('EXISTS', record) == 1 then
            return forgotten
        end
        redis.call('DEL', record)
        redis.call('ZREM', list, id)
        forgotten = forgotten + 1
    end
    return forgotten
end

local forgotten = 0
for _, list in ipairs(KEYS) do
    forgotten = forgotten + forget(list, tonumber(ARGV[2]))
end
return forgotten
