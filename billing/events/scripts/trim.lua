-- Forget the oldest finished events: those past their time, and those beyond what is kept.
-- KEYS: lists of finished events. ARGV: most events of a list, most to forget of a list now,
--       prefix of records. Answers how many were forgotten.
local function forget(list, most)
    local excess, ids, records = redis.call('ZCARD', list) - ARGV[1], {}, {}
    for _, id in ipairs(redis.call('ZRANGE', list, 0, most - 1)) do
        local record = ARGV[3] .. id
        if #ids >= excess and redis.call('EXISTS', record) == 1 then
            break
        end
        ids[#ids + 1] = id
        records[#records + 1] = record
    end
    if #ids > 0 then
        redis.call('DEL', unpack(records))
        redis.call('ZREM', list, unpack(ids))
    end
    return #ids
end

local forgotten = 0
for _, list in ipairs(KEYS) do
    forgotten = forgotten + forget(list, tonumber(ARGV[2]))
end
return forgotten
