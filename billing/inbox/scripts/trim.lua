-- Forget the oldest finished events: those past their time, and those beyond what is kept.
-- KEYS: lists of finished events. ARGV: most events of a list, most to forget of a list now,
--       prefix of records. Answers how many were forgotten.
-- Nearly always there is nothing to forget: hence a few are looked at before many.
local FEW = 100

local function forget(list, most)
    local excess, forgotten = redis.call('ZCARD', list) - ARGV[1], 0
    while forgotten < most do
        local oldest = redis.call('ZRANGE', list, 0, math.min(FEW, most - forgotten) - 1)
        if #oldest == 0 then
            return forgotten
        end
        for _, id in ipairs(oldest) do
            local record = ARGV[3] .. id
            if forgotten >= excess and redis.call('EXISTS', record) == 1 then
                return forgotten
            end
            redis.call('DEL', record)
            redis.call('ZREM', list, id)
            forgotten = forgotten + 1
        end
    end
    return forgotten
end

local forgotten = 0
for _, list in ipairs(KEYS) do
    forgotten = forgotten + forget(list, tonumber(ARGV[2]))
end
return forgotten
