-- Erase free text from a customer's entries. KEYS[1]: the log, a stream; [2]: outcomes by entry, a hash.
-- ARGV[1]: the entry that stays as it is, [2]: the text in place of another, [3] and on: names of values that
-- are free text. Ids, times, actors, actions, outcomes and all other values stay.
local free = {}
for i = 3, #ARGV do
    free[ARGV[i]] = true
end

local function erased(values)
    for name, value in pairs(values) do
        if free[name] and value ~= cjson.null then
            values[name] = ARGV[2]
        end
    end
    -- An empty table would be written as a list.
    return next(values) and cjson.encode(values) or '{}'
end

-- Nothing is written before all of it is read: a value that cannot be read must cost no entry.
local entries, ends = redis.call('XRANGE', KEYS[1], '-', '+'), {}
for _, entry in ipairs(entries) do
    local id, fields = entry[1], entry[2]
    if id ~= ARGV[1] then
        for i = 1, #fields, 2 do
            if fields[i] == 'reason' then
                fields[i + 1] = ARGV[2]
            elseif fields[i] == 'before' then
                fields[i + 1] = erased(cjson.decode(fields[i + 1]))
            end
        end
        local result = redis.call('HGET', KEYS[2], id)
        local after = result and cjson.decode(result).after
        if after then
            ends[id] = '{"after":' .. erased(after) .. '}'
        end
    end
end

redis.call('DEL', KEYS[1])
for _, entry in ipairs(entries) do
    redis.call('XADD', KEYS[1], entry[1], unpack(entry[2]))
end
for id, result in pairs(ends) do
    redis.call('HSET', KEYS[2], id, result)
end
return #entries
