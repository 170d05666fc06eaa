-- Delete the oldest finished events: expired ones, and those beyond the retention count.
-- KEYS: lists of finished events. ARGV: retention count of a list, maximum to delete of a list now,
--       prefix of records. Returns the number of deleted events.
require_whole_slot(KEYS[1])
local function delete_oldest(list, most)
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

local deleted = 0
for _, list in ipairs(KEYS) do
    deleted = deleted + delete_oldest(list, tonumber(ARGV[2]))
end
return deleted
